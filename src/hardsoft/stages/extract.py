"""Stage extract: from a CV-skills export to its distinct skills, each with the number of CVs that mention it."""

import polars as pl

from hardsoft.config.schema import DataConfig, load_config
from hardsoft.core.errors import InputError
from hardsoft.core.files import read_csv, require_columns, write_outputs
from hardsoft.core.names import clean_name, name_key
from hardsoft.core.runner import run


def distinct_skills(rows: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    """Reduce an export to one row per skill.

    Spellings that differ only in case, white space or Unicode form are one skill, shown in its most frequent spelling
    (of equals the first in code-point order). A candidate counts once per skill.

    Args:
        rows: the export, all columns text, nulls allowed.
        data: the names of its columns and the wanted skill type.

    Returns:
        Columns skill and mentions (candidates, >= 1), sorted by skill.
    """
    mentions = (
        rows.lazy()
        .filter(pl.col(data.columns.type).str.strip_chars() == data.skill_type)
        .select(candidate=pl.col(data.columns.candidate).str.strip_chars(), spelling=clean_name(pl.col(data.columns.skill)))
        .filter(pl.col("spelling").is_not_null() & pl.col("spelling").is_in(data.null_values).not_())
        .with_columns(key=name_key(pl.col("spelling")))
    )
    spellings = (
        mentions.group_by("key", "spelling")
        .agg(times=pl.len())
        .sort("key", "times", "spelling", descending=[False, True, False])
        .group_by("key")
        .agg(skill=pl.col("spelling").first())
    )
    counts = mentions.group_by("key").agg(mentions=pl.col("candidate").n_unique())
    return spellings.join(counts, on="key").select("skill", "mentions").sort("skill").collect()


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
    skills = distinct_skills(rows, data)
    if skills.is_empty():
        found = sorted(rows[columns.type].drop_nulls().unique())
        raise InputError(
            f"{data.path}: no skill of type {data.skill_type!r}; column {columns.type!r} has {found[:8]}; set data.skill_type"
        )
    write_outputs({"data/interim/skills.csv": skills.write_csv()})


if __name__ == "__main__":
    run("extract", main)
