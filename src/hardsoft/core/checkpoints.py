"""What tells a checkpoint folder from others: three answers, for three uses. Knows no model and imports no torch.

- `files_hash`, of all files, is part of a row's key: a tokenizer or a configuration can change a completion as weights can.
- `weights_hash` says which model a read-out was fitted on: a new chat template makes it no worse.
- `file_hashes`, file by file, tells whether another machine sees the same folder.
"""

import hashlib
from pathlib import Path

from hardsoft.core.files import file_hash


def files_hash(folder: str) -> str:
    """The SHA-256 of the names and hashes of a folder's files."""
    combined = hashlib.sha256()
    for name, digest in file_hashes(folder).items():
        combined.update(f"{name} {digest}\n".encode())
    return combined.hexdigest()


def weights_hash(folder: str) -> str:
    """16 digits of the SHA-256 of the hashes of a folder's weights."""
    combined = hashlib.sha256()
    for name, digest in file_hashes(folder).items():
        if name.endswith((".safetensors", ".bin")):
            combined.update(bytes.fromhex(digest))
    return combined.hexdigest()[:16]


def file_hashes(folder: str) -> dict[str, str]:
    """The SHA-256 of each file in a folder, by its name, sorted."""
    return {path.name: file_hash(path) for path in sorted(Path(folder).glob("*")) if path.is_file()}
