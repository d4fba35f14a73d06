"""How rows are shared out: among how many processes, and how many of them a process is given at once. Knows no engine."""

import math
from pathlib import Path

import psutil

from hardsoft.config.engines import LocalEngineConfig
from hardsoft.config.machine import Machine
from hardsoft.config.schema import Config
from hardsoft.core.errors import InputError

WINDOW = 1024
"""Rows to look ahead over: enough to put those of like length side by side."""
SHARES = {"reason": 4, "label": 2}
"""At least so many of them for each process, by the prompt's mode, so that all processes end at about the same time.

Fewer and larger ones are faster, since rows of like length are then side by side; where labels are scored all rows take as long.
"""


def count_processes(config: Config, machine: Machine, rows: int) -> int:
    """How many processes to run: what `engine.processes` says, but none that would have less than a batch to do.

    Raises:
        InputError: more processes than GPUs.
    """
    assert isinstance(config.engine, LocalEngineConfig)
    busy = max(1, math.ceil(rows / machine.batch_size))
    wanted = config.engine.processes
    if machine.device == "cuda":
        import torch

        gpus = torch.cuda.device_count()
        if wanted != "auto" and wanted > gpus:
            raise InputError(f"engine.processes is {wanted}, and this machine has {gpus} GPUs; each process takes one of its own")
        return min(busy, gpus if wanted == "auto" else wanted)
    if wanted != "auto":
        return min(busy, wanted)
    return min(busy, physical_cores(), _copies_that_fit(config.model.name))


def rows_in_a_share(config: Config, machine: Machine, rows: int, processes: int) -> int:
    """Of so many rows, those that a process is given at once: a window if there are many, and never less than a batch."""
    return min(WINDOW, max(machine.batch_size, math.ceil(rows / (processes * SHARES[config.prompt.mode]))))


def physical_cores() -> int:
    """Physical cores that this process may use, by its affinity and its container's quota."""
    import joblib

    return int(joblib.cpu_count(only_physical_cores=True))


def _copies_that_fit(model: str) -> int:
    """How many copies of a checkpoint folder half of the free memory holds; 1 for a model of the hub, whose size is not known."""
    size = sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))
    return max(1, psutil.virtual_memory().available // (2 * size)) if size else 1
