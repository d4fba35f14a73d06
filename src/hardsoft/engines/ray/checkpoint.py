"""A checkpoint folder on a cluster: where it lies if a node sees it, else written there once from the object store."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock

from hardsoft.core.checkpoints import file_hashes
from hardsoft.core.errors import InputError
from hardsoft.core.files import file_hash


class Checkpoint:
    """The files of a checkpoint folder; it travels to the workers."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).resolve()
        self._hashes = file_hashes(str(self._folder))
        self._contents: dict[str, Any] = {}

    def send(self) -> None:
        """Put the files into the object store, for nodes that do not see the folder."""
        self._contents = {name: ray.put((self._folder / name).read_bytes()) for name in self._hashes}

    def lies_here(self) -> bool:
        """Whether this node sees the folder, with the same files."""
        return all(self._is_same(self._folder / name) for name in self._hashes)

    def local_folder(self) -> str:
        """The folder on this node, written now if it must be, and then kept for other runs.

        Raises:
            InputError: it is not here, and was not sent.
        """
        if self.lies_here():
            return str(self._folder)
        if not self._contents:
            raise InputError(f"model.name {self._folder}: a node that joined later does not see this folder; run again")
        identity = hashlib.sha256(repr(self._hashes).encode()).hexdigest()[:16]
        copy = Path(tempfile.gettempdir(), f"hardsoft-checkpoints-{os.getuid()}", identity, self._folder.name)
        copy.mkdir(parents=True, exist_ok=True)
        with FileLock(copy.parent / "lock"):
            for name, content in self._contents.items():
                if not self._is_same(copy / name):
                    (copy / name).write_bytes(ray.get(content))
        return str(copy)

    def _is_same(self, path: Path) -> bool:
        return path.is_file() and file_hash(path) == self._hashes[path.name]
