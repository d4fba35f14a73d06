"""Stored, else asked, and stored as it arrives: one function for every kind of answer. Knows neither engines nor judges.

Rows are asked in the order of their keys, which is as good as random: in the order of sorted names, a batch's rows would begin
with the same letter, and a run's progress would say little about the rest. Of each row only its key stays in memory.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hardsoft.store.rows import BATCH, Setting, Store, Value, make_keys, setting_name

KEY_SIZE = 32
"""Bytes of a key."""

OnValues = Callable[[list[tuple[int, Value]]], None]
"""Called with rows and their values as soon as these are there."""

Answer = Callable[[Sequence[int], OnValues], None]
"""Gives rows their values, in any order; a row that it leaves out stays without, and is asked again next time."""


class Answers:
    """The values of rows, read from the store as they are wanted."""

    def __init__(self, store: Store, setting: Setting, count: int, question: Callable[[int], str]) -> None:
        """Look the rows up.

        Args:
            count: of rows.
            question: the rendered question of a row.
        """
        self._store, self._setting, self._count = store, setting, count
        self._keys = bytearray()
        for key in make_keys(setting, map(question, range(count))):
            self._keys += key
        order = np.frombuffer(self._keys, dtype=">u8")[:: KEY_SIZE // 8].argsort(kind="stable")
        self.asked = array("q")
        """Rows that the store lacked, in the order of their keys."""
        for start in range(0, count, BATCH):
            rows = order[start : start + BATCH].tolist()
            found = store.find(setting, [self._key(row) for row in rows])
            self.asked.extend(row for row in rows if self._key(row) not in found)

    def keep(self, values: list[tuple[int, Value]]) -> None:
        """Store rows' values."""
        self._store.put(self._setting, [(self._key(row), value) for row, value in values])

    def read(self, rows: range | None = None) -> Iterator[Value | None]:
        """The values of rows, by default of all, in their order; None for one that was never answered."""
        rows = range(self._count) if rows is None else rows
        for start in range(0, len(rows), BATCH):
            keys = [self._key(row) for row in rows[start : start + BATCH]]
            found = self._store.get(keys)
            yield from map(found.get, keys)

    def _key(self, row: int) -> bytes:
        return bytes(self._keys[KEY_SIZE * row : KEY_SIZE * (row + 1)])


def ask(
    store: Store,
    setting: Setting,
    count: int,
    question: Callable[[int], str],
    answer: Answer,
    settle: Callable[[], Setting] | None = None,
) -> Answers:
    """The values of rows: stored ones as they are, the others from `answer`, stored as they arrive.

    Args:
        setting: whatever else than its question can change a row's value.
        count, question: see `Answers`.
        answer: called once, with the rows that the store lacks, if there are any.
        settle: called before that where `setting` is a guess: the setting as it truly is. If it differs, rows are looked up anew.
    """
    answers = Answers(store, setting, count, question)
    if answers.asked and settle and (settled := settle()) != setting:
        setting, answers = settled, Answers(store, settled, count, question)
    if answers.asked:
        with store.alone(setting_name(setting)) as waited:
            if waited:
                answers = Answers(store, setting, count, question)
            if answers.asked:
                answer(answers.asked, answers.keep)
    return answers
