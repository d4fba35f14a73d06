"""Progress of a long stage: a bar with rate and time left on a terminal, an occasional plain line elsewhere."""

import os
import sys
import time
from types import TracebackType

from tqdm import tqdm

PROCESS = "HARDSOFT_PROCESS"
"""The environment variable that holds the number of a process among its like."""
SECONDS_BETWEEN_LINES = 15.0
FIRST_ESTIMATE = 0.05
"""Share of the rows before which a rate means little."""


class Progress:
    """Counts finished rows: `with Progress("classify", total, "skills") as progress: … progress.advance()`."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self._bar = tqdm(total=total, desc=name, unit=f" {unit}", disable=not sys.stderr.isatty())
        self._name, self._total, self._unit = name, total, unit
        self._done = self._most_workers = 0
        self._start = self._last_line = time.monotonic()

    def advance(self, rows: int = 1, workers: int = 1) -> None:
        """So many more rows are finished, and so many workers are there."""
        self._done += rows
        self._most_workers = max(self._most_workers, workers)
        at_work = f", {workers} of {self._most_workers} workers" if self._most_workers > 1 else ""
        self._bar.set_postfix_str(at_work.removeprefix(", "), refresh=False)
        self._bar.update(rows)
        now = time.monotonic()
        due = now - self._last_line >= SECONDS_BETWEEN_LINES and self._done >= FIRST_ESTIMATE * self._total
        if self._bar.disable and (due or self._done == self._total):
            self._last_line = now
            rate = self._done / max(now - self._start, 1e-9)
            left = (self._total - self._done) / rate
            print(
                f"{self._name}: {self._done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left{at_work}",
                file=sys.stderr,
                flush=True,
            )

    def reach(self, done: int, total: int) -> None:
        """So many rows of so many are finished, by the count of someone else."""
        self._bar.total = self._total = total
        if done > self._done:
            self.advance(done - self._done)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()


def note(text: str, once: bool = False) -> None:
    """A line for the person who waits, above the bar if there is one.

    Args:
        once: whether of several processes that do the same only the first one says so.
    """
    if once and os.environ.get(PROCESS, "0") != "0":
        return
    tqdm.write(f"note: {text}", file=sys.stderr)
