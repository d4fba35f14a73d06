"""The row store on disk: values by key, so that no row is ever asked twice. Knows nothing of what a value says.

A key is a hash over the *setting* (whatever else can change an answer: the model, its quantisation, generation settings,
library versions) and the rendered question. Rows are written as they arrive, each set of them in one transaction, so a killed
run loses nothing. Several processes may use the store at once. It is a cache: its place is `.cache/` of the DVC repository,
and of the main repository when an experiment runs in a temporary folder.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hardsoft.core.errors import InputError
from hardsoft.core.progress import note

SCHEMA_NUMBER = 2
"""Part of the file's name: an older version of this program never meets a newer file."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, used REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS row (
    key BLOB PRIMARY KEY, setting INTEGER NOT NULL, value TEXT NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS row_setting ON row (setting);
"""
SAFE = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_LOCKED", "SQLITE_PERM", "SQLITE_READONLY")
"""Errors of the disk or of other processes; any other means that the file is no store, or no longer."""
BATCH = 500
SECONDS_TO_WAIT_FOR_A_LOCK = 60.0

_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))

Setting = dict[str, Any]
Value = dict[str, Any]


@dataclass(frozen=True)
class SettingSummary:
    """What the store holds of one setting."""

    setting: Setting
    rows: int
    size: int
    """Bytes of the values."""
    unused: float
    """Days since the last use."""


def default_path() -> Path:
    """The store, in HARDSOFT_STORE or of this repository (from an experiment's own folder too, for which DVC sets DVC_ROOT)."""
    folder = os.environ.get("HARDSOFT_STORE") or Path(os.environ.get("DVC_ROOT", "."), ".cache")
    return Path(folder, f"rows-{SCHEMA_NUMBER}.sqlite")


def canonical(value: Any) -> str:
    """The one JSON text of a value, whatever the order of its keys."""
    return _ENCODER.encode(value)


def make_keys(setting: Setting, questions: Iterable[str]) -> Iterator[bytes]:
    """The key of each question in a setting, 32 bytes."""
    common = hashlib.sha256(canonical(setting).encode())
    for question in questions:
        key = common.copy()
        key.update(b"\0" + question.encode("utf-8", "surrogatepass"))
        yield key.digest()


def setting_name(setting: Setting) -> str:
    """A short name of a setting, fit for a file."""
    return hashlib.sha256(canonical(setting).encode()).hexdigest()[:16]


class Store:
    """Rows on disk, or with path None in a temporary file that ends with the process.

    Raises:
        InputError: by every method, when the file is damaged, or cannot be read or written (no permission, no space).
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def find(self, setting: Setting, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the keys that have a value; if any has, their setting counts as used."""
        found: set[bytes] = set()
        with self._open() as connection:
            for batch in _batches(keys):
                query = f"SELECT key FROM row WHERE key IN ({','.join('?' * len(batch))})"
                found |= {key for (key,) in connection.execute(query, batch)}
            if found:
                connection.execute("UPDATE setting SET used = julianday('now') WHERE text = ?", (canonical(setting),))
        return found

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Value]:
        """The values of those keys that have one."""
        found: dict[bytes, Value] = {}
        with self._open() as connection:
            for batch in _batches(keys):
                query = f"SELECT key, value, digest FROM row WHERE key IN ({','.join('?' * len(batch))})"
                found |= {row[0]: _checked(*row) for row in connection.execute(query, batch)}
        return found

    def values(self, setting: Setting) -> list[Value]:
        """All values of a setting."""
        query = "SELECT key, value, digest FROM row WHERE setting = (SELECT id FROM setting WHERE text = ?)"
        with self._open() as connection:
            return [_checked(*row) for row in connection.execute(query, (canonical(setting),))]

    def put(self, setting: Setting, rows: Iterable[tuple[bytes, Value]]) -> None:
        """Store values by key, all in one transaction; a key that has a value keeps it."""
        texts = [(key, canonical(value)) for key, value in rows]
        with self._open() as connection, _transaction(connection):
            connection.execute("INSERT OR IGNORE INTO setting (text) VALUES (?)", (canonical(setting),))
            connection.execute("UPDATE setting SET used = julianday('now') WHERE text = ?", (canonical(setting),))
            ((number,),) = connection.execute("SELECT id FROM setting WHERE text = ?", (canonical(setting),)).fetchall()
            entries = [(key, number, text, _digest(key, text)) for key, text in texts]
            connection.executemany("INSERT OR IGNORE INTO row VALUES (?, ?, ?, ?)", entries)

    @contextmanager
    def alone(self, what: str) -> Iterator[bool]:
        """Do something that no other process with this store does at the same time; gives whether it had to wait for one."""
        if self._path is None:
            yield False
            return
        lock = FileLock(self._path.parent / "locks" / f"{what}.lock")
        waited = False
        try:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            note("another run asks for the same rows; this one waits for it, and asks for what is missing then")
            lock.acquire()
            waited = True
        try:
            yield waited
        finally:
            lock.release()

    def summary(self) -> list[SettingSummary]:
        """What the store holds, setting by setting, the latest used first."""
        query = """
            SELECT text, count(key), coalesce(sum(length(CAST(value AS BLOB))), 0), julianday('now') - used
            FROM setting LEFT JOIN row ON setting.id = row.setting GROUP BY setting.id ORDER BY used DESC, text
        """
        with self._open() as connection:
            return [SettingSummary(json.loads(text), *rest) for text, *rest in connection.execute(query)]

    def prune(self, days: float) -> int:
        """Delete the rows of settings not used for so many days; returns how many."""
        old = "max(julianday('now') - used, 0) >= ?"  # a clock that was wrong may have put the last use into the future
        with self._open() as connection:
            with _transaction(connection):
                settings = f"SELECT id FROM setting WHERE {old}"
                deleted = connection.execute(f"DELETE FROM row WHERE setting IN ({settings})", (days,)).rowcount
                connection.execute(f"DELETE FROM setting WHERE {old}", (days,))
            connection.execute("VACUUM")
        return deleted

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, made at its first use; what SQLite raises becomes one line."""
        try:
            self._connection = self._connection or _connect(self._path)
            yield self._connection
        except (sqlite3.Error, ValueError) as error:
            name = str(getattr(error, "sqlite_errorname", ""))
            if name.startswith(SAFE) and name != "SQLITE_IOERR_SHORT_READ":
                raise InputError(f"{self._path}: {error}; rows stored before are kept (--no-store does without)") from None
            raise InputError(f"{self._path}: damaged ({error}): move it away, or run with --no-store") from None


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path or "", timeout=SECONDS_TO_WAIT_FOR_A_LOCK, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(SCHEMA)
    return connection


def _batches(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Few enough keys at a time for SQLite's limit on a query's parameters."""
    return (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))


def _checked(key: bytes, value: Any, digest: bytes) -> Value:
    """A row's value, if it is what was written."""
    if not isinstance(value, str) or _digest(key, value) != digest:
        raise sqlite3.DatabaseError("a row is not what was written")
    parsed: Value = json.loads(value)
    return parsed


def _digest(key: bytes, value: str) -> bytes:
    """What tells a row from one that the disk has changed."""
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), key=key, digest_size=8).digest()
