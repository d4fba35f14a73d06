"""Stage clean: from completions to labels, with every completion kept in a log that a person can read."""

import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any

import polars as pl

from hardsoft.config.schema import load_config
from hardsoft.core.files import to_json, writing
from hardsoft.core.labels import Label, Outcome
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv
from hardsoft.prompting.answers import Reading, read_answer

COMPLETIONS = "data/interim/completions.jsonl"
OUTPUTS = ("data/processed/hard_soft_skills.csv", "data/processed/labels.csv", "data/processed/CoT.log", "metrics/labels.json")
RULE = "=" * 80
Row = dict[str, Any]


def completions() -> Iterator[Row]:
    """The rows that classify wrote, one at a time: there may be millions."""
    with open(COMPLETIONS, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def reading(row: Row, doubted: Container[str] = ()) -> Reading:
    """What a row's completion says; of doubted skills, that it abstains."""
    read = read_answer(row["completion"], row["finish_reason"])
    if read.outcome is Outcome.ANSWERED and row["skill"] in doubted:
        return Reading(Label.UNKNOWN, Outcome.ABSTAINED, read.answer)
    return read


def doubted_skills(abstain_below: float | None) -> set[str]:
    """The skills whose likeliest label is less likely than so much; none where no probabilities are known."""
    if abstain_below is None:
        return set()
    table = read_csv("data/interim/probabilities.csv").with_columns(pl.exclude("skill").cast(pl.Float64))
    return set(table.filter(pl.max_horizontal(pl.exclude("skill")) < abstain_below)["skill"])


def breakdown(labels: pl.DataFrame) -> dict[str, dict[str, int]]:
    """How many skills have each label and each outcome; every name is there, be it with 0."""
    given, outcomes = Counter(labels["label"].to_list()), Counter(labels["outcome"].to_list())
    return {
        "labels": {label: given[label] for label in Label},
        "outcomes": {outcome: outcomes[outcome] for outcome in Outcome},
    }


def log_head(skills: int, counts: Mapping[str, Mapping[str, int]]) -> str:
    """How the chain-of-thought log begins: with the overall breakdown."""
    lines = [f"{skills} skills", ""]
    for heading, of_each in counts.items():
        shares = (f"  {name:<12}{count:>8}{count / max(skills, 1):>8.1%}" for name, count in of_each.items())
        lines += [heading, *shares, ""]
    return "\n".join([*lines, ""])


def log_entry(row: Row, read: Reading) -> str:
    """A skill in the log: its reasoning, its answer and its label."""
    return (
        f"{RULE}\nSkill: {row['skill']}\n\n{row['completion'].strip()}\n\nRead as: {read.answer or '(no verdict stated)'}\n"
        f"Label: {read.label} ({read.outcome}; {row['tokens']} tokens, finished by {row['finish_reason']})\n\n"
    )


def main() -> None:
    doubted = doubted_skills(load_config().clean.abstain_below)
    skills = read_csv("data/interim/skills.csv")
    read = pl.DataFrame(
        ((row["skill"], one.label.value, one.outcome.value) for row in completions() for one in [reading(row, doubted)]),
        schema={"skill": pl.String, "label": pl.String, "outcome": pl.String},
        orient="row",
    )
    labels = (
        skills.join(read, on="skill", how="left", validate="1:1").select("skill", "label", "outcome", "mentions").sort("skill")
    )
    counts = breakdown(labels)
    with writing(*OUTPUTS) as (study_format, table, log, metrics):
        study_format.write(labels.select(pl.col("skill").alias("Skill"), "label").write_csv(separator=";"))
        table.write(labels.write_csv())
        log.write(log_head(read.height, counts))
        log.writelines(log_entry(row, reading(row, doubted)) for row in completions())
        metrics.write(to_json({"skills": read.height, **counts}))


if __name__ == "__main__":
    run("clean", main)
