"""Batches under way, remembered in the row store: a killed run collects what it has paid for. Knows no provider.

A batch is announced by the file of its questions before it is created, and added by its id afterwards. One that was announced
only may have been created or not: the run was killed between, or the reply was lost.
"""

from collections.abc import Sequence

from hardsoft.store.rows import Setting, Store, Value, make_keys


class BatchLog:
    """The batches that were sent off in one setting, and the questions in each."""

    def __init__(self, store: Store, setting: Setting) -> None:
        self._store, self._setting = store, setting

    def announce(self, file: str, questions: Sequence[str]) -> None:
        """Remember that a batch of an uploaded file is about to be created, with the ids of its questions."""
        self._put(file, {"file": file, "questions": list(questions)})

    def add(self, batch: str, file: str, questions: Sequence[str]) -> None:
        """Remember a batch by its id, with its file and the ids of its questions."""
        self._put(batch, {"batch": batch, "file": file, "questions": list(questions)})

    def settle(self, batch: str) -> None:
        """Remember that a batch is collected, or given up: it is looked at no more."""
        self._put(f"{batch} settled", {"settled": batch})

    def holding(self, questions: set[str]) -> dict[str, list[str]]:
        """The batches under way that hold one of the questions, in the order of their ids, with all that they hold."""
        settled = {value["settled"] for value in self._values("settled")}
        under_way = [value for value in self._values("batch") if value["batch"] not in settled]
        holding = {value["batch"]: value["questions"] for value in under_way if questions & set(value["questions"])}
        return dict(sorted(holding.items()))

    def in_doubt(self, questions: set[str]) -> dict[str, list[str]]:
        """Files that hold one of the questions and of which nobody knows whether there is a batch, with their questions."""
        known = {value.get("file") for value in self._values("batch")}
        announced = [value for value in self._values("file") if value["file"] not in known]
        return {value["file"]: value["questions"] for value in announced if questions & set(value["questions"])}

    def _values(self, having: str) -> list[Value]:
        return [value for value in self._store.values(self._setting) if having in value]

    def _put(self, name: str, value: Value) -> None:
        (key,) = make_keys(self._setting, [name])
        self._store.put(self._setting, [(key, value)])
