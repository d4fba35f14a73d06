"""Text files: outputs that are replaced only when all of them are ready. Knows JSON, not what the files are for."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from hardsoft.core.errors import InputError


@contextmanager
def writing(*paths: str) -> Iterator[list[TextIO]]:
    """Text files to write to, which replace the old ones together at the end of the `with` block.

    If anything fails before that, the old ones are as they were.
    """
    parts = [Path(f"{path}.part") for path in paths]
    try:
        with ExitStack() as stack:
            for part in parts:
                part.parent.mkdir(parents=True, exist_ok=True)
            yield [stack.enter_context(open(part, "w", encoding="utf-8", newline="")) for part in parts]
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink()


def read_text(path: str) -> str:
    """The text of a file that people edit.

    Raises:
        InputError: it is not UTF-8.
    """
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf_8(path, content, error) from None


def not_utf_8(path: str, content: bytes, error: UnicodeDecodeError) -> InputError:
    """What to say of a file's bytes that are no UTF-8, with the line's number."""
    line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
    return InputError(f"{path}: line {line} is not UTF-8 (byte {content[error.start]:#04x}); save the file as UTF-8")


def write_outputs(outputs: Mapping[str, str]) -> None:
    """Write several text files, path -> content, all of them or none."""
    with writing(*outputs) as files:
        for file, text in zip(files, outputs.values(), strict=True):
            file.write(text)


def to_json(value: Any) -> str:
    """Indented JSON for a metrics file; NaN and infinities raise ValueError instead of being written."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_jsonl(path: str) -> list[dict[str, Any]]:
    """Read a JSON-lines file written by an earlier stage."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def file_hash(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        InputError: there is none.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
