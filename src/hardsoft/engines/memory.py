"""How much memory an engine has used."""

import resource
import sys


def peak_memory_mb(device: str = "cpu") -> float:
    """Peak memory of this process so far in MB: of the GPU on a `cuda` device, else resident."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e6
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6
