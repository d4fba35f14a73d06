"""A row being completed: its prompt, what it has generated, and when it ends. Knows token ids only."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Generated:
    """A row and what it has generated so far."""

    row: int
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    """Ended by its stop rule; otherwise by the token limit."""
    watched: list[tuple[int, list[float]]] = field(default_factory=list)
    """For each generated token that is among the watched ones: its position in `tokens`, and the logits of all watched ones."""

    def take(self, token: int, stop: "Stop", max_new_tokens: int) -> bool:
        """Give the row its next token; whether it goes on."""
        self.tokens.append(token)
        self.stopped = stop(self)
        return not self.stopped and len(self.tokens) < max_new_tokens


Stop = Callable[[Generated], bool]
"""Called with a row after each new token; True ends it."""
