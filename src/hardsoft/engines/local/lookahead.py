"""Rows that wait to be computed: looked ahead over, a window at a time, and handed out the longest first.

Knows the order of rows and what their prompts begin with, nothing of how they are computed.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from statistics import median_low

from hardsoft.core.sequences import common_prefix
from hardsoft.engines.local.rows import Row

LONG_BY = 64
"""Tokens by which a prompt is longer than its window's median when it is kept back: it would widen every slot beside it."""


class Lookahead:
    """Takes rows from a source that may be endless, `window` of them at once.

    All rows that it gives out between two calls of `renew` begin with the same `prefix`.
    """

    def __init__(self, rows: Iterable[Row], window: int) -> None:
        self._source, self._window = iter(rows), window
        self._alike: deque[Row] = deque()
        self._others: list[Row] = []
        """Rows that do not begin with the prefix; nothing is taken from the source while there are any."""
        self._long: list[Row] = []
        """Rows that are far longer than the rest, kept back for a pass of their own."""
        self.prefix: list[int] = []
        """Token ids that all rows begin with, and none ends with."""

    def renew(self) -> bool:
        """Make the prefix that of the rows that wait, else of the next window, else of the long rows; False if none are left."""
        rows = self._others or self._pull()
        if not rows:
            rows, self._long = self._longest_first(self._long), []
        self._others = []
        if rows:
            prompts = [prompt for _, prompt in rows]
            self.prefix = prompts[0][: min(common_prefix(prompts), min(map(len, prompts)) - 1)]  # for there must be a query
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
        """The next window without its long rows; or, before these become many, they themselves."""
        if len(self._long) >= self._window:
            rows, self._long = self._long, []
            return self._longest_first(rows)
        rows = list(islice(self._source, self._window))
        longest = median_low(len(prompt) for _, prompt in rows) + LONG_BY if rows else 0
        self._long += [row for row in rows if len(row[1]) > longest]
        return self._longest_first([row for row in rows if len(row[1]) <= longest])

    @staticmethod
    def _longest_first(rows: list[Row]) -> list[Row]:
        return sorted(rows, key=lambda row: (-len(row[1]), row[0]))

    def _fits(self, prompt: list[int]) -> bool:
        return len(prompt) > len(self.prefix) and prompt[: len(self.prefix)] == self.prefix
