"""Rows being completed: their prompts, what they have generated, and when they end. Knows token ids and no tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hardsoft.engines.shares import WINDOW

Row = tuple[int, list[int]]
"""A row's number, and the token ids of its prompt."""


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


Stop = Callable[[Generated], bool]
"""Called with a row after each new token; True ends it."""


@dataclass(frozen=True)
class Job:
    """How rows are completed."""

    slots: int
    """Rows that decode at once."""
    max_new_tokens: int
    """The limit of each row."""
    stop: Stop
    watch: Sequence[int] = ()
    """Token ids whose logits are recorded wherever one of them is generated."""
    window: int = WINDOW
    """Rows to look ahead over, for their common prefix and their order."""

    def give(self, row: Generated, token: int, logits: Callable[[], list[float]] | None = None) -> bool:
        """Give a row its next token; whether it goes on.

        Args:
            logits: those of the watched tokens at its place; None where nothing is watched.
        """
        row.tokens.append(token)
        if logits and token in self.watch:
            row.watched.append((len(row.tokens) - 1, logits()))
        row.stopped = self.stop(row)
        return not row.stopped and len(row.tokens) < self.max_new_tokens
