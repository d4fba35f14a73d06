"""CSV files, read so that no row is lost in silence: a row that must be a mistake is reported in one line, with its number.

The csv module reads, strictly; knows no column's meaning. Messages tell lines and counts, and never what the file holds: CVs are
personal.
"""

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice
from pathlib import Path

import polars as pl

from hardsoft.core.errors import InputError
from hardsoft.core.files import not_utf_8
from hardsoft.core.kinds import other_kind
from hardsoft.core.swallowed import Suspect, first_with_rows, may_hold_rows

BATCH = 50_000
"""Rows that are held as Python objects at once."""
NO_TEXT = "\x1f"
"""A character that stands between no two fields of a plain table."""
_SEP_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)


def read_csv(path: str, separator: str = ",", null_values: tuple[str, ...] = ()) -> pl.DataFrame:
    """Read a CSV file with every column as text, empty fields as null; the lines may end in any way.

    Raises:
        InputError: the file is missing, empty, of another kind, not UTF-8, or not a table.
    """
    return parse_csv(_text(path), path, separator, null_values)


def parse_csv(text: str, path: str, separator: str = ",", null_values: tuple[str, ...] = ()) -> pl.DataFrame:
    """The same of a text, which the messages call by its file's path."""
    if (plain := _plain_table(text, separator, ("", *null_values))) is not None:
        return plain
    suspects: list[Suspect] = []
    rows = _rows(path, text, separator, suspects)
    header = next(rows, None)
    if header is None:
        raise InputError(f"{path}: empty; expected a CSV file with a header line")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"{path}: {len(twice)} columns have the name of another; each needs its own")
    nulls = {"", *null_values}
    schema = dict.fromkeys(header, pl.String)
    batches = [pl.DataFrame(schema=schema)]
    while batch := list(islice(rows, BATCH)):
        columns = [[None if value in nulls else value for value in column] for column in zip(*batch, strict=True)]
        batches.append(pl.DataFrame(dict(zip(header, columns, strict=True)), schema=schema))
    table = pl.concat(batches)
    if swallowed := first_with_rows(suspects, table, separator):
        raise InputError(
            f'{path}: line {swallowed.line} begins a quoted field with whole rows in it; close the quote, and write "" for one '
            "inside a field (a backslash does not do)"
        )
    return table


def require_columns(table: pl.DataFrame, path: str, columns: list[str], hint: str) -> None:
    """Raise InputError unless the table has these columns; the hint says what would be right."""
    for column in columns:
        if column not in table.columns:
            names = {part for name in table.columns for part in re.split(r"[;,|\t]", name)}
            known = not names.isdisjoint(columns)  # else the first row may be somebody's data
            first = f", the first {', '.join(repr(name[:30]) for name in table.columns[:3])}" if known else ""
            raise InputError(f"{path}: no column {column!r}; its header has {len(table.columns)}{first}; {hint}")


def _plain_table(text: str, separator: str, null_values: Sequence[str]) -> pl.DataFrame | None:
    """A table of which every line is a row and every separator one between fields, read at once; None for any other file."""
    header, _, rows = text.partition("\n")
    names = header.split(separator)
    if (
        not header
        or not rows
        or len(set(names)) < len(names)
        or any(sign in text for sign in ('"', "\\", "\r", NO_TEXT))
        or _SEP_LINE.match(text)
    ):
        return None
    lines = pl.read_csv(
        rows.encode(), has_header=False, separator=NO_TEXT, quote_char=None, new_columns=["line"], infer_schema=False
    )
    if (lines["line"].str.count_matches(separator, literal=True) != len(names) - 1).any() or lines["line"].null_count():
        return None
    fields = pl.col("line").str.split_exact(separator, len(names) - 1).struct.rename_fields(names)
    table = lines.select(fields).unnest("line")
    return table.with_columns(pl.when(pl.all().is_in(list(null_values)).not_()).then(pl.all()))


def _rows(path: str, text: str, separator: str, suspects: list[Suspect]) -> Iterator[list[str]]:
    """The file's header and rows, all of the same length; fields that may have swallowed rows are added to the suspects."""
    first = 1
    if hint := _SEP_LINE.match(text):
        if hint[1] != separator:
            raise InputError(f"{path}: line 1 says {hint[0].strip()!r}, and the separator is {separator!r}; set data.separator")
        text, first = text[hint.end() :], 2
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    fields = 0
    while True:
        line = first + reader.line_num
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}: line {line} {_fault(error)}") from None
        if row is None:
            return
        if not row:
            continue
        fields = fields or len(row)
        if len(row) != fields:
            more = f"more fields than the header; quote a field that contains {separator!r}"
            raise InputError(f"{path}: line {line} has {more if len(row) > fields else 'fewer fields than the header'}")
        if any('\\"' in value for value in row):
            raise InputError(f'{path}: line {line} has a backslash before a quote; write "" for one, and quote the field')
        for column, value in enumerate(row):
            if may_hold_rows(value, separator, fields, column):
                suspects.append(Suspect(line, column, value))
        yield row


def _fault(error: csv.Error) -> str:
    if "end of data" in str(error):
        return 'has an unclosed double quote; write "" for a quote inside a quoted field'
    return 'has a quote inside a field; write "" for it, and quote the field (a backslash before it does not do)'


def _text(path: str) -> str:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; expected a CSV file") from None
    if kind := other_kind(content):
        raise InputError(f"{path}: {kind}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf_8(path, content, error) from None
    if "\0" in text[:1000]:
        raise InputError(f"{path}: no text in UTF-8; export the table as CSV")
    return text
