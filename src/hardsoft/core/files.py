"""Text files in and out: outputs that are replaced only when all of them are ready, and tables whose faults have a line.

Knows the formats, not what the files are for.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import polars as pl

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


def read_csv(path: str, separator: str = ",", null_values: tuple[str, ...] = ()) -> pl.DataFrame:
    """Read a CSV file with every column as text.

    Raises:
        InputError: the file is missing, empty, not UTF-8, or not a table.
    """
    try:
        with open(path, "rb") as file:
            file.readline().decode("utf-8")  # polars checks the rows, but not the header
        return pl.read_csv(path, separator=separator, infer_schema=False, null_values=list(null_values))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (IsADirectoryError, pl.exceptions.NoDataError):
        raise InputError(f"{path}: empty; expected a CSV file with a header line") from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError):
        raise InputError(_why_unreadable(path, separator)) from None


def require_columns(table: pl.DataFrame, path: str, columns: list[str], hint: str) -> None:
    """Raise InputError unless the table has these columns; the hint says what would be right."""
    for column in columns:
        if column not in table.columns:
            raise InputError(f"{path}: no column {column!r}; its header reads {table.columns}; {hint}")


def _why_unreadable(path: str, separator: str) -> str:
    """Say which line of a file the CSV reader could not take."""
    content = Path(path).read_bytes()
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"{path}: line {line} is not UTF-8 (byte {content[error.start]:#04x}); save the file as UTF-8"
    for number, text in enumerate(lines, start=1):
        if text.count('"') % 2:
            return f'{path}: line {number} has an unclosed double quote; write "" for a quote inside a quoted field'
        if '"' not in text and text.count(separator) > lines[0].count(separator):
            return f"{path}: line {number} has more fields than the header; quote a field that contains {separator!r}"
    return f"{path}: not a CSV file separated by {separator!r}"
