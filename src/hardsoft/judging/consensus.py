"""One verdict from several: the majority. Knows no judge."""

import polars as pl

from hardsoft.judging.base import JudgeOutcome

VERDICT_COLUMNS = {"skill": pl.String, "judge": pl.String, "repeat": pl.Int64, "verdict": pl.String, "outcome": pl.String}
"""Of a verdict file, what a consensus is made from."""


def consensus(verdicts: pl.DataFrame) -> pl.DataFrame:
    """The verdict that most judges and repeats gave for each skill.

    Args:
        verdicts: VERDICT_COLUMNS; several rows for a skill.

    Returns:
        Columns skill, verdict, outcome, sorted by skill. Where two verdicts lead alike there is none, and the outcome is `tied`;
        where no verdict was given, the outcome is that of the first judge.
    """
    votes = verdicts.drop_nulls("verdict").group_by("skill", "verdict").len("votes")
    leading = votes.filter(pl.col("votes") == pl.col("votes").max().over("skill"))
    elected = leading.group_by("skill").agg(pl.col("verdict").first(), leaders=pl.len())
    first = verdicts.sort("skill", "judge", "repeat").unique("skill", keep="first").select("skill", failed="outcome")
    tied, alone = pl.col("leaders") > 1, pl.col("leaders") == 1
    return (
        first.join(elected, on="skill", how="left")
        .with_columns(
            verdict=pl.when(alone).then("verdict"),
            outcome=pl.when(alone)
            .then(pl.lit(JudgeOutcome.ANSWERED.value))
            .when(tied)
            .then(pl.lit(JudgeOutcome.TIED.value))
            .otherwise("failed"),
        )
        .select("skill", "verdict", "outcome")
        .sort("skill")
    )
