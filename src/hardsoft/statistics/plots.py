"""The tables behind the plots of counts, precisions and confusions; knows no plot."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from hardsoft.core.labels import ABILITIES, Label

PRECISION = {"label": pl.String, "precision": pl.Float64, "low": pl.Float64, "high": pl.Float64, "skills": pl.Int64}


def confusion(judged: pl.DataFrame) -> pl.DataFrame:
    """How many sampled skills have each label and each verdict, and which share of the label's.

    Args:
        judged: columns label, verdict (or null).

    Returns:
        Columns predicted, judged, skills, share (in [0, 1], 4 decimals); a row for each pair of labels.
    """
    every = pl.DataFrame([(given, verdict) for given in Label for verdict in Label], schema=["label", "verdict"], orient="row")
    counts = judged.drop_nulls("verdict").group_by("label", "verdict").len("skills")
    filled = every.join(counts, on=["label", "verdict"], how="left", maintain_order="left").with_columns(
        pl.col("skills").fill_null(0)
    )
    share = pl.col("skills") / pl.col("skills").sum().over("label")
    return filled.select(predicted="label", judged="verdict", skills="skills", share=share.fill_nan(0.0).round(4))


def counts(labels: Mapping[str, int], outcomes: Mapping[str, int]) -> pl.DataFrame:
    """How many skills have each label and each outcome: columns kind, name, skills."""
    rows = [
        (kind, name, count)
        for kind, counted in (("label", labels), ("outcome", outcomes))
        for name, count in sorted(counted.items())
    ]
    return pl.DataFrame(rows, schema=["kind", "name", "skills"], orient="row")


def precision(sample: Mapping[str, Any]) -> pl.DataFrame:
    """The precisions that can be estimated, with columns PRECISION.

    Args:
        sample: as `sample_figures` returns it.
    """
    figures = [(label, sample[label.lower()]) for label in ABILITIES]
    columns = ("accuracy", "low", "high", "n")
    rows = [(label, *(row[column] for column in columns)) for label, row in figures if row["accuracy"] is not None]
    return pl.DataFrame(rows, schema=PRECISION, orient="row")
