"""How an allocator says that memory is short."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is a refusal by an allocator, of a GPU's memory or the main one."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )
