"""What `auto` means on this machine, told without importing torch, which takes seconds; of the device, torch has the last word.

Only what does not change between runs counts, such as a card's total memory: what is told here is part of a row's key.
"""

import os
from dataclasses import dataclass
from importlib.metadata import version

import psutil
import pynvml

from hardsoft.config.engines import EngineConfig, LocalEngineConfig, ModelEngineConfig, RayEngineConfig, ServerEngineConfig
from hardsoft.config.schema import Config
from hardsoft.core.paths import NO_READOUT

ELSEWHERE = "elsewhere"
LIBRARIES = ("torch", "transformers", "tokenizers")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ROOM_TO_DEQUANTIZE = 1.4
"""Total memory that dequantising takes, as a multiple of the dequantised weights: those of 4 bits, keys and values, and work."""

ROWS = (256, 128, 64, 32, 16)
"""What `engine.batch_size: auto` may mean on a GPU."""
ROWS_ON_A_CPU = 64
ROW_SHARE = 0.005
"""Memory that a row takes, keys and values and its part of the work, as a share of the unquantised weights' size."""
WEIGHT_BYTES = {"nf4": 0.6, "fp4": 0.6, "int8": 1.1}
"""Bytes of a quantised parameter, with what is not quantised."""


@dataclass(frozen=True)
class Machine:
    """What a configuration's `auto` means where it runs."""

    device: str
    """`cpu` or `cuda`; a server's is `elsewhere`."""
    rows_at_once: int | None
    """Rows that decode at once in each process; None for a server."""
    dequantize: bool
    """Whether 4-bit weights are turned back after loading."""

    @property
    def batch_size(self) -> int:
        """`rows_at_once` of an engine that loads the model itself."""
        assert self.rows_at_once is not None
        return self.rows_at_once


def guess_machine(config: Config) -> Machine:
    """What `auto` means, as far as that can be told without torch."""
    return machine_on(config, guess_device(config.engine))


def find_machine(config: Config) -> Machine:
    """What `auto` means, torch asked for the device."""
    return machine_on(config, find_device(config.engine))


def guess_device(engine: EngineConfig) -> str:
    """`cpu` or `cuda`; `auto` is the GPU where NVIDIA's management library finds one and CUDA_VISIBLE_DEVICES hides not all.

    A server's is `elsewhere`, and Ray's is what its workers have.
    """
    if isinstance(engine, ServerEngineConfig):
        return ELSEWHERE
    if isinstance(engine, RayEngineConfig):
        return "cuda" if engine.num_gpus else "cpu"
    if engine.device != "auto":
        return engine.device
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return "cpu"
    try:
        pynvml.nvmlInit()
        return "cuda" if pynvml.nvmlDeviceGetCount() else "cpu"
    except pynvml.NVMLError:
        return "cpu"


def find_device(engine: EngineConfig) -> str:
    """`cpu` or `cuda`, as torch finds it; a server's is `elsewhere`, and Ray's is what its workers have."""
    guess = guess_device(engine)
    if not isinstance(engine, LocalEngineConfig) or engine.device != "auto":
        return guess
    if guess == "cpu" and "rocm" not in version("torch"):  # torch takes seconds to say the same
        return guess
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def readout_of(config: Config) -> str | None:
    """The path of the read-out that labels, if one does: only a local engine's scores come from one."""
    used = config.prompt.mode == "label" and isinstance(config.engine, ModelEngineConfig)
    return config.model.readout if used and config.model.readout != NO_READOUT else None


def libraries_of(config: Config) -> tuple[str, ...]:
    """The packages whose versions can change a completion."""
    return (*LIBRARIES, *(["bitsandbytes"] if config.quantization.method != "none" else []))


def machine_on(config: Config, device: str) -> Machine:
    """What `auto` means on a device, `cpu`, `cuda` or `elsewhere`."""
    if isinstance(config.engine, ServerEngineConfig):
        return Machine(device, None, False)
    dequantize = _dequantizes(config, device)
    return Machine(device, _rows_at_once(config, device, dequantize), dequantize)


def _dequantizes(config: Config, device: str) -> bool:
    """Whether 4-bit weights are turned back after loading: `auto` does where the device's whole memory has room for them."""
    if config.quantization.dequantize != "auto":
        return config.quantization.dequantize
    size = config.model.parameters * BYTES[config.model.dtype]
    return total_memory(device) >= ROOM_TO_DEQUANTIZE * size


def _rows_at_once(config: Config, device: str, dequantize: bool) -> int:
    """What `engine.batch_size` says; auto is as many, up to 256, as a GPU's whole memory has room for beside the weights."""
    assert isinstance(config.engine, ModelEngineConfig)
    if config.engine.batch_size != "auto":
        return config.engine.batch_size
    if device != "cuda":
        return ROWS_ON_A_CPU
    size = config.model.parameters * BYTES[config.model.dtype]
    packed = config.quantization.method != "none" and not dequantize
    weights = config.model.parameters * WEIGHT_BYTES[config.quantization.method] if packed else size
    room = 0.9 * total_memory(device) - weights
    return next((rows for rows in ROWS if rows * ROW_SHARE * size <= room), ROWS[-1])


def total_memory(device: str) -> int:
    """Bytes of main memory, or of the smallest GPU's; 0 where NVIDIA's library cannot tell."""
    if device != "cuda":
        return psutil.virtual_memory().total
    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return min((int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles), default=0)
    except pynvml.NVMLError:
        return 0
