"""Rows that wait to be computed: looked ahead over, a window at a time, and handed out the longest first.

Knows the order of rows and what their prompts begin with, nothing of how they are computed.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

WINDOW = 1024
"""Rows to look ahead over: enough to put those of like length side by side."""

Row = tuple[int, list[int]]
"""A row's number, and the token ids of its prompt."""


class Lookahead:
    """Takes rows from a source that may be endless, `window` of them at once.

    All rows that it gives out between two calls of `renew` begin with the same `prefix`.
    """

    def __init__(self, rows: Iterable[Row], window: int) -> None:
        self._source, self._window = iter(rows), window
        self._alike: deque[Row] = deque()
        self._others: list[Row] = []
        """Rows that do not begin with the prefix; nothing is taken from the source while there are any."""
        self.prefix: list[int] = []
        """Token ids that all rows begin with, and none ends with."""

    def renew(self) -> bool:
        """Make the prefix that of the rows that wait, or else of the next window; whether there are any."""
        rows = self._others or self._pull()
        self._others = []
        if rows:
            self.prefix = rows[0][1][: common_prefix([prompt for _, prompt in rows])]
            self._alike.extend(rows)
        return bool(rows)

    def waits(self) -> bool:
        """Whether there is a row that begins with the prefix."""
        if not self._alike and not self._others:
            for row in self._pull():
                (self._alike if self._fits(row[1]) else self._others).append(row)
        return bool(self._alike)

    def take(self, count: int) -> list[Row]:
        """So many rows that begin with the prefix, or as many as there are."""
        taken: list[Row] = []
        while len(taken) < count and self.waits():
            taken.append(self._alike.popleft())
        return taken

    def _pull(self) -> list[Row]:
        return sorted(islice(self._source, self._window), key=lambda row: (-len(row[1]), row[0]))

    def _fits(self, prompt: list[int]) -> bool:
        return len(prompt) > len(self.prefix) and prompt[: len(self.prefix)] == self.prefix


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """How many first tokens all prompts share; at least one token of each prompt is left out, for there must be a query."""
    first, last = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(shared, min(map(len, prompts)) - 1)
