"""Which skills a judge checks: draws that depend on a seed and on names, on no order of rows and on no random generator."""

import hashlib
from collections.abc import Mapping

import polars as pl

from hardsoft.core.labels import ABILITIES, Label

LEAST = 10
"""Of a label's skills, by Neyman's allocation: fewer say nothing of a label."""


def per_label(labels: pl.DataFrame, sizes: Mapping[str, int], seed: int) -> pl.DataFrame:
    """A simple random sample of the skills with each label.

    Args:
        labels: columns skill, label.
        sizes: how many of each label; if there are fewer, all are taken; none of a label that is not named.

    Returns:
        Columns skill, label, weight (1 / inclusion probability, >= 1), sorted by label and skill.
    """
    wanted = pl.col("label").replace_strict(dict(sizes), default=0, return_dtype=pl.Int64)
    return (
        labels.filter(wanted > 0)
        .with_columns(ticket=tickets(labels.filter(wanted > 0), seed))
        .sort("label", "ticket")
        .with_columns(place=pl.int_range(pl.len()).over("label"), size=pl.len().over("label"))
        .filter(pl.col("place") < wanted)
        .with_columns(weight=pl.col("size") / pl.len().over("label"))
        .select("skill", "label", "weight")
        .sort("label", "skill")
    )


def neyman(counts: Mapping[str, int], precision: Mapping[str, float], total: int) -> dict[str, int]:
    """How many of each label make the population's accuracy most certain (Neyman 1934, JRSS 97:558).

    In proportion to a label's count times the standard deviation of being right, but at least LEAST of each (or all).

    Args:
        counts: of the skills with each label.
        precision: the expected one of each label, in [0, 1].
        total: of all labels together.
    """
    present = [label for label in ABILITIES if counts.get(label, 0)]
    pull = {label: counts[label] * max(precision[label] * (1 - precision[label]), 1e-4) ** 0.5 for label in present}
    settled: dict[Label, int] = {}
    while open_labels := [label for label in present if label not in settled]:
        left, pulls = total - sum(settled.values()), sum(pull[label] for label in open_labels)
        wanted = {label: round(left * pull[label] / pulls) for label in open_labels}
        possible = {label: min(counts[label], max(LEAST, share)) for label, share in wanted.items()}
        bounded = {label: share for label, share in possible.items() if share != wanted[label]}
        settled |= bounded or possible
    return {str(label): share for label, share in settled.items()}


def frozen(labels: pl.DataFrame, fractions: pl.Series, seed: int) -> pl.DataFrame:
    """The skills whose seeded hash falls under a fraction: the same ones whatever their labels and whichever others there are.

    Args:
        labels: columns skill, label.
        fractions: of each row, in (0, 1].

    Returns:
        As `per_label` does.
    """
    return (
        labels.with_columns(fraction=fractions, place=tickets(labels, seed) / 2.0**64)
        .filter(pl.col("place") < pl.col("fraction"))
        .with_columns(weight=1 / pl.col("fraction"))
        .select("skill", "label", "weight")
        .sort("label", "skill")
    )


def by_mention(labels: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """So many Hard and Soft skills, each with a probability proportional to its mentions, at most 1.

    Sequential Poisson sampling (Ohlsson 1998, Journal of Official Statistics 14:149): those with the smallest of a uniform hash
    divided by the mentions.

    Args:
        labels: columns skill, label, mentions (>= 1).

    Returns:
        As `per_label` does; where a skill was drawn for sure, the weight is 1.
    """
    skills = labels.filter(pl.col("label").is_in(ABILITIES)).sort("skill")
    probability = inclusion(skills["mentions"], n)
    place = (tickets(skills, seed) + 0.5) / 2.0**64
    chosen = skills.with_columns(weight=1 / probability, order=pl.when(probability >= 1).then(0.0).otherwise(place / probability))
    return chosen.sort("order", "skill").head(n).select("skill", "label", "weight").sort("label", "skill")


def inclusion(mentions: pl.Series, n: int) -> pl.Series:
    """The probability of each item to be among n drawn in proportion to mentions, 1 for those too large to be left to chance."""
    ordered = mentions.cast(pl.Float64).sort(descending=True)
    total = ordered.sum()
    certain = 0
    while certain < min(n, len(ordered)) and (n - certain) * ordered[certain] >= total:
        total -= ordered[certain]
        certain += 1
    if certain >= min(n, len(ordered)):
        floor = ordered[certain - 1] if certain else 0.0
        return (mentions >= floor).cast(pl.Float64).clip(1e-12, 1.0)
    return ((n - certain) * mentions / total).clip(0.0, 1.0)


def tickets(labels: pl.DataFrame, seed: int) -> pl.Series:
    """A uniform number of 64 bits for each skill."""
    digests = (hashlib.sha256(f"{seed}\0{skill}".encode()).digest() for skill in labels["skill"])
    return pl.Series((int.from_bytes(digest[:8], "big") for digest in digests), dtype=pl.UInt64)
