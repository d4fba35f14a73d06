"""CUDA graphs: work that the host describes once and a GPU repeats, so that it need not wait for a thousand small launches."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

Result = TypeVar("Result")


class Replayed(Generic[Result]):
    """A function without arguments, over tensors that stay where they are: on a GPU captured when it is called again.

    From then on every call replays the capture, and the result's tensors are those of the first replay with new values. The
    function must wait for nothing that the device computes and hand nothing up to it. On a CPU it is simply called.
    """

    def __init__(self, function: Callable[[], Result], device: torch.device, pool: Any) -> None:
        """
        Args:
            pool: of `torch.cuda.graph_pool_handle`, shared by functions that never run side by side; None on a CPU.
        """
        self._function, self._captures, self._pool = function, device.type == "cuda", pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Result | None = None
        self._called = False

    def __call__(self) -> Result:
        if not self._captures or not self._called:  # libraries allocate what they need at a first call, which no graph may do
            self._called = True
            return self._function()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=self._pool):
                self._result = self._function()
        self._graph.replay()
        assert self._result is not None
        return self._result
