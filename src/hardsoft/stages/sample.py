"""Stage sample: draw the skills that the judge will check, so many per predicted label."""

import hashlib

import polars as pl

from hardsoft.config.schema import load_config
from hardsoft.core.files import write_outputs
from hardsoft.core.labels import ANSWERS
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv


def draw(labels: pl.DataFrame, per_label: int, seed: int) -> pl.DataFrame:
    """A simple random sample of each label given to a skill, Hard and Soft.

    The skills of a label are ordered by a seeded hash of their name and the first are taken: the draw does not depend on
    the order of rows or on a library's random generator, and new skills displace at most as many as they are.

    Args:
        labels: columns skill, label.
        per_label: wanted of each label; if there are fewer, all are taken.
        seed: another seed, another sample.

    Returns:
        Columns skill, label, weight (1 / inclusion probability, >= 1), sorted by label and skill.
    """
    ticket = pl.col("skill").map_elements(lambda skill: _ticket(skill, seed), return_dtype=pl.String)
    return (
        labels.filter(pl.col("label").is_in(ANSWERS))
        .with_columns(ticket=ticket)
        .sort("label", "ticket")
        .with_columns(place=pl.int_range(pl.len()).over("label"), size=pl.len().over("label"))
        .filter(pl.col("place") < per_label)
        .with_columns(weight=pl.col("size") / pl.len().over("label"))
        .select("skill", "label", "weight")
        .sort("label", "skill")
    )


def _ticket(skill: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{skill}".encode()).hexdigest()


def main() -> None:
    sample = load_config().sample
    labels = read_csv("data/processed/labels.csv")
    write_outputs({"data/processed/sample.csv": draw(labels, sample.per_label, sample.seed).write_csv()})


if __name__ == "__main__":
    run("sample", main)
