"""The engine that a configuration asks for, in as many processes as pay. What an engine needs is imported where it runs."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from hardsoft.config.device import dequantizes, rows_at_once
from hardsoft.config.preflight import read_key
from hardsoft.config.schema import Config, LocalEngineConfig, RayEngineConfig, ServerEngineConfig, readout_of
from hardsoft.core.errors import InputError
from hardsoft.core.readouts import NO_SKILL, prompt_hash, read_readout
from hardsoft.engines.base import Engine
from hardsoft.engines.local.lookahead import WINDOW
from hardsoft.engines.pool import Pool
from hardsoft.prompting.prompts import read_prompt

SHARES = 8
"""At least so many of them for each process, so that all processes end at about the same time."""

RAY = {
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that still waits when this process has left a cluster would start one
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables of Ray."""


@contextmanager
def open_engine(config: Config, device: str, rows: int) -> Iterator[Engine]:
    """An engine for so many rows, until the end of the `with` block.

    Args:
        device: `cpu` or `cuda`, for a local engine.

    Raises:
        InputError: the model cannot be loaded.
    """
    if isinstance(config.engine, ServerEngineConfig):
        from hardsoft.engines.fleet import Fleet
        from hardsoft.engines.openai_client import NO_KEY
        from hardsoft.engines.server import ServerEngine

        option, prompt, key = config.engine, config.prompt, read_key(config.engine.api_key_env) or NO_KEY
        servers = {
            url: ServerEngine(option, url, prompt.max_new_tokens, key, prompt.mode == "label") for url in option.addresses()
        }
        yield Fleet(servers) if len(servers) > 1 else next(iter(servers.values()))
        return
    if isinstance(config.engine, RayEngineConfig):
        for name, value in RAY.items():
            os.environ.setdefault(name, value)  # read when it is imported
        from hardsoft.engines.ray.engine import ray_engine

        with ray_engine(config, device, rows) as engine:
            yield engine
        return
    processes = count_processes(config, device, rows)
    if processes == 1:
        yield local_engine(config, device)
        return
    window = rows_in_a_share(config, device, rows, processes)
    devices = [f"cuda:{number}" for number in range(processes)] if device == "cuda" else ["cpu"] * processes
    makers = [partial(local_engine, config, one, window) for one in devices]
    with Pool(makers, window, threads=None if device == "cuda" else max(1, physical_cores() // processes)) as pool:
        yield pool


def local_engine(config: Config, device: str, window: int = WINDOW) -> Engine:
    """Load the configured model onto a device of this process."""
    if config.model.source == "folder":
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by the libraries when they are imported
    from hardsoft.engines.local.engine import LocalEngine
    from hardsoft.engines.local.loading import load, weights_identity
    from hardsoft.engines.local.packing import pack_linears
    from hardsoft.engines.local.readout import check_fits, end_in
    from hardsoft.engines.local.tokens import Encoder

    if device.startswith("cuda:"):
        import torch

        torch.cuda.set_device(device)
    quantization = config.quantization.model_copy(update={"dequantize": dequantizes(config, device.partition(":")[0])})
    network, tokenizer = load(config.model, quantization, device)
    if path := readout_of(config):
        readout = read_readout(path)
        probe = prompt_hash(read_prompt(config.prompt).messages(NO_SKILL))
        check_fits(readout, path, network, weights_identity(config.model), probe)
        end_in(network, readout)
    prompt = config.prompt
    # Scoring takes three rows of the output layer, which packed weights cannot give.
    pack_linears(network, but=network.get_output_embeddings() if prompt.mode == "label" else None)
    return LocalEngine(
        network,
        Encoder(tokenizer, config.model.chat_template),
        rows_at_once(config, device.partition(":")[0]),
        prompt.max_new_tokens,
        prompt.mode == "label",
        window,
        path is not None,
    )


def count_processes(config: Config, device: str, rows: int) -> int:
    """How many processes to run: what `engine.processes` says, but none that would have less than a batch to do.

    Raises:
        InputError: more processes than GPUs.
    """
    assert isinstance(config.engine, LocalEngineConfig)
    busy = max(1, math.ceil(rows / rows_at_once(config, device)))
    wanted = config.engine.processes
    if device == "cuda":
        import torch

        gpus = torch.cuda.device_count()
        if wanted != "auto" and wanted > gpus:
            raise InputError(f"engine.processes is {wanted}, and this machine has {gpus} GPUs; each process takes one of its own")
        return min(busy, gpus if wanted == "auto" else wanted)
    if wanted != "auto":
        return min(busy, wanted)
    return min(busy, physical_cores(), _copies_that_fit(config.model.name))


def rows_in_a_share(config: Config, device: str, rows: int, processes: int) -> int:
    """Of so many rows, those that a process is given at once: a window if there are many, and never less than a batch."""
    return min(WINDOW, max(rows_at_once(config, device), math.ceil(rows / (processes * SHARES))))


def physical_cores() -> int:
    """Physical cores that this process may use, by its affinity and its container's quota."""
    import joblib

    return int(joblib.cpu_count(only_physical_cores=True))


def _copies_that_fit(model: str) -> int:
    """How many copies of a checkpoint folder half of the free memory holds; 1 for a model of the hub, whose size is not known."""
    size = sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))
    return max(1, psutil.virtual_memory().available // (2 * size)) if size else 1
