"""Between host and device, without the one waiting for what the other still does."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on a device; work given to the device after it sees it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class ToHost:
    """A tensor on its way to the host."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.to("cpu", non_blocking=True)  # into pinned memory, where it comes from a GPU
        self._copied = None
        if tensor.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def wait(self) -> Tensor:
        """The tensor, once it is there."""
        if self._copied:
            self._copied.synchronize()
        return self._tensor
