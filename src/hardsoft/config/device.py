"""What `auto` means, told without importing torch, which takes seconds; of the device, torch has the last word where it runs.

Only what does not change between runs counts, such as a card's total memory: what is told here is part of a row's key.
"""

import os

import psutil
import pynvml

from hardsoft.config.schema import Config, EngineConfig, ServerEngineConfig

ELSEWHERE = "elsewhere"
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ROOM_TO_DEQUANTIZE = 1.4
"""Total memory that dequantising takes, as a multiple of the dequantised weights: those of 4 bits, keys and values, and work."""


def guess_device(engine: EngineConfig) -> str:
    """`cpu` or `cuda`; `auto` is the GPU where NVIDIA's management library finds one and CUDA_VISIBLE_DEVICES hides not all.

    A server's is `elsewhere`.
    """
    if isinstance(engine, ServerEngineConfig):
        return ELSEWHERE
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
    """`cpu` or `cuda`, as torch finds it; a server's is `elsewhere`."""
    if isinstance(engine, ServerEngineConfig):
        return ELSEWHERE
    if engine.device != "auto":
        return engine.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def dequantizes(config: Config, device: str) -> bool:
    """Whether 4-bit weights are turned back after loading: `auto` does where the device's whole memory has room for them."""
    if config.quantization.dequantize != "auto":
        return config.quantization.dequantize
    size = config.model.parameters * BYTES[config.model.dtype]
    return total_memory(device) >= ROOM_TO_DEQUANTIZE * size


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
