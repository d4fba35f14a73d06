"""The reference labels, as a table and as verdicts."""

from collections.abc import Sequence

import polars as pl

from hardsoft.core.errors import InputError
from hardsoft.core.labels import Label
from hardsoft.core.names import clean_key, clean_name, key
from hardsoft.core.tables import read_csv, require_columns
from hardsoft.judging.base import JudgeOutcome, Verdict


def read_reference(path: str) -> pl.DataFrame:
    """Read reference labels.

    Returns:
        Columns key (what names are compared by, unique), skill, label, note, sorted by key.

    Raises:
        InputError: an unreadable file, a missing column, a label that is none of the three, a skill with two labels.
    """
    table = read_csv(path)
    require_columns(table, path, ["skill", "label"], "expected skill,label,note")
    return labels_of(table.with_row_index("line", offset=2), path)


def labels_of(table: pl.DataFrame, path: str) -> pl.DataFrame:
    """The labels in a table, checked; see `read_reference`.

    Args:
        table: columns line (in the file), skill, label and perhaps note; rows without a skill do not count.
        path: of the file, for messages.
    """
    note = pl.col("note") if "note" in table.columns else pl.lit(None, pl.String).alias("note")
    labels = table.select(
        "line",
        note,
        skill=clean_name(pl.col("skill")),
        label=pl.col("label").str.strip_chars(),
    )
    labels = labels.with_columns(key=clean_key(pl.col("skill"))).drop_nulls("key")
    unknown = labels.filter(pl.col("label").is_in(list(Label)).not_() | pl.col("label").is_null())
    for line, skill, label in unknown.select("line", "skill", "label").iter_rows():
        raise InputError(f"{path}: line {line}: skill {skill!r} has the label {label!r}; it must be Hard, Soft or Unknown")
    twice = labels.unique(["key", "label"]).group_by("key").len().filter(pl.col("len") > 1)
    conflicts = labels.join(twice, on="key", how="semi").sort("key", "line")
    if not conflicts.is_empty():
        skill, first, second = conflicts["skill"][0], *conflicts.select("label", "line").rows()[:2]
        raise InputError(
            f"{path}: skill {skill!r} has two labels, {first[0]} (line {first[1]}) and {second[0]} (line {second[1]}); keep one"
        )
    return labels.unique("key", keep="first", maintain_order=True).sort("key").select("key", "skill", "label", "note")


def reference_verdicts(reference: pl.DataFrame, skills: Sequence[str]) -> list[Verdict]:
    """The reference label of each skill as its verdict.

    Args:
        reference: as `read_reference` returns it.
    """
    labels = {name: (label, note) for name, label, note in reference.select("key", "label", "note").iter_rows()}
    verdicts = []
    for skill in skills:
        label, note = labels.get(key(skill), (None, None))
        if label is None:
            verdicts.append(Verdict(None, JudgeOutcome.NOT_IN_REFERENCE))
        else:
            verdicts.append(Verdict(Label(label), JudgeOutcome.ANSWERED, note or ""))
    return verdicts
