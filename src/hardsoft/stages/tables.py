"""The tables that one stage writes and others read, with their columns and types. Knows what is in them, not what it is for."""

import json
from collections.abc import Iterator
from typing import TypedDict

import polars as pl

from hardsoft.core import paths
from hardsoft.core.chat import FinishReason
from hardsoft.core.files import read_jsonl
from hardsoft.core.labels import Label
from hardsoft.core.tables import read_csv


class CompletionRow(TypedDict):
    """What classify writes of a skill."""

    skill: str
    completion: str
    finish_reason: FinishReason
    tokens: int


def skills() -> pl.DataFrame:
    """Columns skill (unique) and mentions (>= 1), sorted by skill; extract's."""
    return read_csv(paths.SKILLS).with_columns(pl.col("mentions").cast(pl.Int64))


def completions() -> Iterator[CompletionRow]:
    """The rows that classify wrote, one at a time: there may be millions."""
    with open(paths.COMPLETIONS, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def completion_texts() -> pl.LazyFrame:
    """Columns skill and completion, of the same rows, still to be collected."""
    return pl.scan_ndjson(paths.COMPLETIONS, schema={"skill": pl.String, "completion": pl.String})


def probabilities() -> pl.DataFrame:
    """Columns skill, hard, soft, unknown, the latter in [0, 1], or null where the engine gave none; classify's."""
    return read_csv(paths.PROBABILITIES).with_columns(pl.exclude("skill").cast(pl.Float64))


def labels() -> pl.DataFrame:
    """Columns skill (unique), label, outcome, mentions (>= 1), sorted by skill; clean's."""
    return read_csv(paths.LABELS).with_columns(pl.col("mentions").cast(pl.Int64))


def sample() -> pl.DataFrame:
    """Columns skill (unique), label, weight (1 / inclusion probability, >= 1), sorted by label and skill; sample's."""
    return read_csv(paths.SAMPLE).with_columns(pl.col("weight").cast(pl.Float64))


def verdicts() -> pl.DataFrame:
    """Columns skill, judge, repeat (>= 1), verdict (null where there is none), outcome, rationale; judge's."""
    texts = dict.fromkeys(("skill", "judge", "verdict", "outcome", "rationale"), pl.String)
    return pl.DataFrame(read_jsonl(paths.VERDICTS), schema={**texts, "repeat": pl.Int64})


def probability_given(labels: pl.DataFrame, probabilities: pl.DataFrame) -> pl.DataFrame:
    """The same labels with a column probability, that of the label given, null where none is known.

    Args:
        labels: columns skill, label and any others.
        probabilities: as `probabilities` reads them.
    """
    given = pl.coalesce(pl.when(pl.col("label") == label).then(pl.col(label.lower())) for label in Label)
    known = labels.join(probabilities, on="skill", how="left", maintain_order="left")
    return known.select(*labels.columns, probability=given)
