"""What an engine is: `complete(chats, on_results)`. Knows none of them."""

from collections.abc import Callable, Iterable
from typing import Protocol

from hardsoft.core.chat import Chat, Completion

OnResults = Callable[[list[tuple[int, Completion]]], None]
"""Called with positions of chats and their completions as soon as these are there."""


class Engine(Protocol):
    @property
    def peak_memory_mb(self) -> float:
        """Megabytes of GPU memory on a GPU, else of main memory, summed over the engine's processes."""

    @property
    def workers(self) -> list[str]:
        """The device of each process, server or worker that computes at the moment: a GPU's name, `cpu` or `elsewhere`."""

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Complete every chat greedily, in whatever order is fast; chats are taken as there is room for them."""
