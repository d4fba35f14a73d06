"""Rows by their keys: which of them the store has, which are to be asked, and their values. Knows neither engines nor judges.

Rows are asked in the order of their keys, which is as good as random: in the order of sorted names, a batch's rows would begin
with the same letter, and a run's progress would say little about the rest. Of each row only its key stays in memory.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from hardsoft.store.rows import BATCH, Setting, Store, Value, make_keys, setting_name

KEY_SIZE = 32
"""Bytes of a key."""


class StoredRows:
    """Rows of one setting, numbered from 0; their values are read from the store as they are wanted."""

    def __init__(self, store: Store, setting: Setting, questions: Iterable[str]) -> None:
        """Look the rows up.

        Args:
            questions: the rendered question of each row.
        """
        self.setting = setting
        self._store = store
        self._keys = b"".join(make_keys(setting, questions))
        self._look_up()

    def __len__(self) -> int:
        return len(self._keys) // KEY_SIZE

    def _look_up(self) -> None:
        order = np.frombuffer(self._keys, dtype=">u8")[:: KEY_SIZE // 8].argsort(kind="stable")
        self.missing = array("q")
        """Rows that the store lacked, in the order of their keys."""
        for start in range(0, len(self), BATCH):
            rows = order[start : start + BATCH].tolist()
            found = self._store.find(self.setting, [self._key(row) for row in rows])
            self.missing.extend(row for row in rows if self._key(row) not in found)

    @contextmanager
    def to_ask(self) -> Iterator[Sequence[int]]:
        """The rows that are missing, while no other run asks for rows of this setting; what one asked meanwhile is there then."""
        if not self.missing:
            yield self.missing
            return
        with self._store.alone(setting_name(self.setting)) as waited:
            if waited:
                self._look_up()
            yield self.missing

    def keep(self, values: Sequence[tuple[int, Value]]) -> None:
        """Store rows' values."""
        self._store.put(self.setting, [(self._key(row), value) for row, value in values])

    def read(self, rows: range | None = None) -> Iterator[Value | None]:
        """The values of rows, by default of all, in their order; None for one that was never answered."""
        rows = range(len(self)) if rows is None else rows
        for start in range(0, len(rows), BATCH):
            keys = [self._key(row) for row in rows[start : start + BATCH]]
            found = self._store.get(keys)
            yield from map(found.get, keys)

    def _key(self, row: int) -> bytes:
        return self._keys[KEY_SIZE * row : KEY_SIZE * (row + 1)]
