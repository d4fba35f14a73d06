"""Stage extract: from a CV-skills export to its distinct skills, each with the number of CVs that mention it."""

from typing import Any

import polars as pl

from hardsoft.config.load import load_config
from hardsoft.config.schema import DataConfig
from hardsoft.core import paths
from hardsoft.core.errors import InputError
from hardsoft.core.files import to_json, write_outputs
from hardsoft.core.names import clean_key, clean_name, key
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv, require_columns


def skill_mentions(rows: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    """The rows that name a skill of the wanted type.

    Args:
        rows: the export, all columns text, nulls allowed.
        data: the names of its columns and the wanted skill type.

    Returns:
        Columns candidate (null allowed), spelling (see `clean_name`), key (what names are compared by).
    """
    nulls = list(filter(None, map(key, data.null_values)))

    def present(column: pl.Expr) -> pl.Expr:
        """A clean column, null where its values say that there is none."""
        return pl.when(clean_key(column).is_in(nulls).not_()).then(column)

    candidate, skill, kind = (
        clean_name(pl.col(name)) for name in (data.columns.candidate, data.columns.skill, data.columns.type)
    )
    return (
        rows.select(candidate=candidate, spelling=skill, type=kind)
        .with_columns(present(pl.col("type")))
        .filter(pl.col("type") == data.skill_type)
        .select(present(pl.col("candidate")), present(pl.col("spelling")))
        .with_columns(key=clean_key(pl.col("spelling")))
        .drop_nulls("key")
    )


def distinct_skills(mentions: pl.DataFrame) -> pl.DataFrame:
    """Reduce mentions to one row per skill.

    Spellings with the same key are one skill, shown in its most frequent spelling (of equals the first in code-point order). A
    candidate counts once per skill, and rows without one count as one candidate together.

    Returns:
        Columns skill and mentions (candidates, >= 1), sorted by skill.
    """
    spellings = (
        mentions.group_by("key", "spelling")
        .agg(times=pl.len())
        .sort("key", "times", "spelling", descending=[False, True, False])
        .group_by("key")
        .agg(skill=pl.col("spelling").first())
    )
    counts = mentions.group_by("key").agg(mentions=pl.col("candidate").n_unique())
    return spellings.join(counts, on="key").select("skill", "mentions").sort("skill")


def input_counts(rows: pl.DataFrame, mentions: pl.DataFrame, skills: pl.DataFrame, data: DataConfig) -> dict[str, Any]:
    """What became of each row of the export; `rows` is the sum of `other_type`, `no_type`, `no_name` and `mentions`."""
    nulls = list(filter(None, map(key, data.null_values)))
    kind = clean_name(pl.col(data.columns.type))
    kinds = rows.select(pl.when(clean_key(kind).is_in(nulls).not_()).then(kind)).to_series()
    of_type = int((kinds == data.skill_type).sum())
    return {
        "rows": rows.height,
        "left_out": {
            "other_type": rows.height - of_type - kinds.null_count(),
            "no_type": kinds.null_count(),
            "no_name": of_type - mentions.height,
        },
        "mentions": mentions.height,
        "without_candidate": mentions["candidate"].null_count(),
        "repeated": mentions.height - int(skills["mentions"].sum()),
        "spellings": mentions["spelling"].n_unique(),
        "skills": skills.height,
    }


def main() -> None:
    data = load_config().data
    rows = read_csv(data.path, data.separator, tuple(data.null_values))
    columns = data.columns
    require_columns(
        rows,
        data.path,
        [columns.candidate, columns.skill, columns.type],
        f"set data.columns, or data.separator if {data.separator!r} is wrong",
    )
    mentions = skill_mentions(rows, data)
    skills = distinct_skills(mentions)
    if skills.is_empty():
        kinds = rows[columns.type].drop_nulls().n_unique()
        raise InputError(
            f"{data.path}: no skill of type {data.skill_type!r} in {rows.height} rows; column {columns.type!r} has {kinds} "
            "different values; set data.skill_type"
        )
    counts = input_counts(rows, mentions, skills, data)
    write_outputs({paths.SKILLS: skills.write_csv(), paths.INPUT_METRICS: to_json(counts)})


if __name__ == "__main__":
    run("extract", main)
