"""Whether a quoted field with line breaks is text, or has swallowed whole rows because of a stray quote.

A file whose rows all have the right number of fields may be either. Swallowed lines have the separators of rows, and cells
that look like those of the other rows. Knows no file and no column's meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

FEW = 0.02
"""The share of a column's cells below which they tell nothing of the others."""


@dataclass(frozen=True)
class Suspect:
    """A field that holds as many separators as if it had swallowed rows."""

    line: int
    """Where its row begins in the file."""
    column: int
    value: str


def may_hold_rows(value: str, separator: str, fields: int, column: int) -> bool:
    """Whether a field could be the rest of its own row, and the beginning of another."""
    lines = _lines(value) if fields > 1 and ("\n" in value or "\r" in value) else []
    return len(lines) > 1 and lines[0].count(separator) >= fields - 1 - column and lines[-1].count(separator) >= column


def first_with_rows(suspects: Sequence[Suspect], table: pl.DataFrame, separator: str) -> Suspect | None:
    """The first of the suspects that has swallowed rows, by what the rows around it look like.

    Args:
        table: what was read, the suspects' own cells included.
    """
    if not suspects:
        return None
    doubted = [{suspect.value for suspect in suspects if suspect.column == column} for column in range(table.width)]
    looks = [_Look(table.to_series(column), doubted[column]) for column in range(table.width)]
    indented = any(look.indented for look in looks)
    for suspect in suspects:
        votes = [looks[column].fits(cell, indented) for column, cell in _cells(suspect, separator, table.width)]
        if votes.count(True) > votes.count(False) or votes.count(None) == len(votes):
            return suspect
    return None


def _lines(value: str) -> list[str]:
    return [line for line in value.splitlines() if line.strip()]


def _cells(suspect: Suspect, separator: str, fields: int) -> list[tuple[int, str]]:
    """The cells of the rows that the field would have swallowed, each with its column."""
    first, *between, last = _lines(suspect.value)
    after = fields - 1 - suspect.column
    cells = list(zip(range(suspect.column + 1, fields), first.split(separator)[-after:] if after else [], strict=True))
    for line in between:
        cells += zip(range(fields), line.split(separator), strict=False)
    return cells + list(zip(range(suspect.column + 1), last.split(separator), strict=False))


class _Look:
    """What the cells of a column have in common."""

    def __init__(self, column: pl.Series, doubted: set[str]) -> None:
        cells = column.drop_nulls()
        cells = cells.filter(cells.is_in(list(doubted)).not_())
        self._known = len(cells) > 0
        self._values = set(cells.unique().to_list()) if len(cells) > 3 and 2 * cells.n_unique() <= len(cells) else set()
        lettered = cells.str.contains(r"\p{L}")
        self._lettered, self._bare = _usual(lettered), _usual(~lettered)
        self.indented = _usual(cells.str.contains(r"^\s"))

    def fits(self, cell: str, indented: bool) -> bool | None:
        """Whether a cell could be one of this column; None where nothing tells.

        Args:
            indented: whether cells of the table, of whatever column, begin with a blank.
        """
        if not cell:
            return None
        if cell[0].isspace() and not (self.indented if self._known else indented):
            return False
        if not self._known:
            return None
        if self._values and cell not in self._values:
            return False
        return self._lettered if any(character.isalpha() for character in cell) else self._bare


def _usual(found: pl.Series) -> bool:
    """Whether more than a few cells are so."""
    return len(found) > 0 and int(found.sum()) >= FEW * len(found) and bool(found.any())
