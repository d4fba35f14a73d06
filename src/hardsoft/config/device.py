"""What `engine.device: auto` means, told without importing torch, which takes seconds; torch has the last word where it runs."""

import os

import pynvml

from hardsoft.config.schema import EngineConfig, ServerEngineConfig

ELSEWHERE = "elsewhere"


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
