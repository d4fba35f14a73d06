"""The row store: answers of models by what was asked, so that no row is ever asked twice.

A key is a hash over the *setting* (whatever else can change an answer: the model, its quantisation, generation settings,
library versions) and the rendered question. Rows are written as they arrive, each set of them in one transaction, so a killed
run loses nothing. Several processes may use the store at once. It is a cache: its place is `.cache/` of the DVC repository,
and of the main repository when an experiment runs in a temporary folder.

`python -m hardsoft.store` shows what it holds; `--prune DAYS` drops what was not used for so long.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hardsoft.core.errors import InputError
from hardsoft.core.progress import note

FORMAT = 1
"""Of keys and values; one more whenever older rows would be wrong answers."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, hits INTEGER NOT NULL DEFAULT 0, used REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS row (
    key BLOB PRIMARY KEY, setting INTEGER NOT NULL, value TEXT NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS row_setting ON row (setting);
"""
CORRUPT = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_IOERR_SHORT_READ", "SQLITE_SCHEMA", "SQLITE_ERROR")
"""Errors that mean: this is no store of ours, or no longer."""
BATCH = 500
SECONDS_TO_WAIT_FOR_A_LOCK = 60.0

Setting = dict[str, Any]
Value = dict[str, Any]
Result = TypeVar("Result")


class CorruptStoreError(Exception):
    """A row whose content is not what was written."""


def default_path() -> Path:
    """The store of this repository, also from a temporary experiment folder, for which DVC sets DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT", "."), ".cache", "rows.sqlite")


def canonical(value: Any) -> str:
    """The one JSON text of a value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Store:
    """Rows on disk, or nothing at all with path None.

    Raises:
        InputError: by every method, when the file cannot be read or written (no permission, no space).
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None

    def get(self, setting: Setting, questions: Sequence[str]) -> dict[int, Value]:
        """Stored values by position of their question; questions never asked are left out."""
        keys = self.keys(setting, questions)
        return self._safely(lambda connection: _get(connection, canonical(setting), keys), {})

    def put(self, setting: Setting, rows: Iterable[tuple[str, Value]]) -> None:
        """Store values of questions, all in one transaction; a question that has a value keeps it."""
        texts = [(question, canonical(value)) for question, value in rows]
        keys = self.keys(setting, [question for question, _ in texts])
        entries = [(key, value) for key, (_, value) in zip(keys, texts, strict=True)]
        self._safely(lambda connection: _put(connection, canonical(setting), entries), None)

    @staticmethod
    def keys(setting: Setting, questions: Sequence[str]) -> list[bytes]:
        """The key of each question in a setting."""
        common = hashlib.sha256(canonical({"format": FORMAT, **setting}).encode())
        keys = []
        for question in questions:
            key = common.copy()
            key.update(b"\0" + question.encode("utf-8", "surrogatepass"))
            keys.append(key.digest())
        return keys

    def summary(self) -> list[tuple[Setting, int, int, int, float]]:
        """For each setting: what it is, rows, bytes of their values, hits, and days since its last use; latest first."""
        query = """
            SELECT text, count(key), coalesce(sum(length(CAST(value AS BLOB))), 0), hits, julianday('now') - used
            FROM setting LEFT JOIN row ON setting.id = row.setting GROUP BY setting.id ORDER BY used DESC, text
        """

        def read(connection: sqlite3.Connection) -> list[tuple[Setting, int, int, int, float]]:
            try:
                return [(json.loads(text), *rest) for text, *rest in connection.execute(query)]
            except (TypeError, ValueError):
                raise CorruptStoreError from None

        return self._safely(read, [])

    def prune(self, days: float) -> int:
        """Delete the rows of settings not used for so many days; returns how many."""
        return self._safely(lambda connection: _prune(connection, days), 0)

    def _safely(self, action: Callable[[sqlite3.Connection], Result], nothing: Result) -> Result:
        """Do something with the store; one that turns out to be corrupt is set aside, and the action done on a new one."""
        if self._path is None:
            return nothing
        for _ in range(2):
            try:
                if self._connection is None:
                    self._connection = _connect(self._path)
                    self._opened = os.stat(self._path)
                return action(self._connection)
            except (CorruptStoreError, UnicodeDecodeError):
                self._set_aside()
            except sqlite3.Error as error:
                name = getattr(error, "sqlite_errorname", CORRUPT[0])
                if not name.startswith(CORRUPT):
                    raise InputError(f"{self._path}: {error}; rows stored before are kept (--no-store does without)") from None
                self._set_aside()
        raise InputError(f"{self._path}: corrupt again right after it was made anew; --no-store does without")

    def _set_aside(self) -> None:
        assert self._path is not None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._opened and self._path.exists() and not os.path.samestat(self._opened, os.stat(self._path)):
            return  # another process has already set it aside
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
            number += 1
        note(f"{self._path} is corrupt: set aside as {aside.name}, its rows are asked anew")
        for suffix in ("", "-wal", "-shm"):
            file = self._path.with_name(self._path.name + suffix)
            if file.exists():
                os.replace(file, aside.with_name(aside.name + suffix))


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=SECONDS_TO_WAIT_FOR_A_LOCK, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(SCHEMA)
    return connection


def _get(connection: sqlite3.Connection, setting: str, keys: list[bytes]) -> dict[int, Value]:
    found: dict[bytes, Value] = {}
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        query = f"SELECT key, value, digest FROM row WHERE key IN ({','.join('?' * len(batch))})"
        for key, value, digest in connection.execute(query, batch):
            if not isinstance(value, str) or _digest(key, value) != digest:
                raise CorruptStoreError
            found[key] = json.loads(value)
    if found:
        used = "UPDATE setting SET hits = hits + ?, used = julianday('now') WHERE text = ?"
        connection.execute(used, (sum(key in found for key in keys), setting))
    return {position: found[key] for position, key in enumerate(keys) if key in found}


def _put(connection: sqlite3.Connection, setting: str, entries: list[tuple[bytes, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("INSERT OR IGNORE INTO setting (text) VALUES (?)", (setting,))
        connection.execute("UPDATE setting SET used = julianday('now') WHERE text = ?", (setting,))
        ((number,),) = connection.execute("SELECT id FROM setting WHERE text = ?", (setting,)).fetchall()
        rows = [(key, number, value, _digest(key, value)) for key, value in entries]
        connection.executemany("INSERT OR IGNORE INTO row VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _prune(connection: sqlite3.Connection, days: float) -> int:
    old = "SELECT id FROM setting WHERE julianday('now') - used >= ?"
    connection.execute("BEGIN IMMEDIATE")
    deleted = connection.execute(f"DELETE FROM row WHERE setting IN ({old})", (days,)).rowcount
    connection.execute("DELETE FROM setting WHERE julianday('now') - used >= ?", (days,))
    connection.execute("COMMIT")
    connection.execute("VACUUM")
    return deleted


def _digest(key: bytes, value: str) -> bytes:
    """What tells a row from one that the disk has changed."""
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), key=key, digest_size=8).digest()
