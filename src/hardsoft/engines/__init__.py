"""How completions are made. An engine is `complete(prompts, on_result)`; it knows neither DVC nor Hydra nor the file layout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "error"]
"""The model ended its message, the token limit did, or the engine failed on this row."""


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt."""

    text: str
    finish_reason: FinishReason
    tokens: int
    """Generated, the end-of-sequence token included."""


OnResult = Callable[[int, Completion], None]
"""Called with a prompt's position as soon as its completion is there."""


class Engine(Protocol):
    def complete(self, prompts: Sequence[list[int]], on_result: OnResult) -> None:
        """Complete every prompt greedily, in whatever order is fast."""
