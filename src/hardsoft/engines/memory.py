"""How much memory an engine has used, and how an allocator says that it is short."""

import resource
import sys


def peak_memory_mb(device: str = "cpu") -> float:
    """Peak memory of this process so far in MB: of the GPU on a `cuda` device, else resident."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e6
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is a refusal by an allocator, of a GPU's memory or the main one."""
    import torch

    refused = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return refused or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
