"""Batches under way, remembered in the row store: a killed run collects what it has paid for. Knows no provider."""

from collections.abc import Sequence

from hardsoft.store.rows import Setting, Store, make_keys


class BatchLog:
    """The batches that were sent off in one setting, and the questions in each."""

    def __init__(self, store: Store, setting: Setting) -> None:
        self._store, self._setting = store, setting

    def add(self, batch: str, questions: Sequence[str]) -> None:
        """Remember a batch by its id, with the ids of its questions."""
        (key,) = make_keys(self._setting, [batch])
        self._store.put(self._setting, [(key, {"batch": batch, "questions": list(questions)})])

    def holding(self, questions: set[str]) -> list[str]:
        """The batches that hold one of the questions, in the order of their ids."""
        batches = self._store.values(self._setting)
        return sorted(batch["batch"] for batch in batches if questions & set(batch["questions"]))
