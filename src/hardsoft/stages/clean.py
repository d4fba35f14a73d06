"""Stage clean: from completions to labels, with every completion kept in a log that a person can read."""

from collections import Counter
from typing import Any

import polars as pl

from hardsoft.core.files import read_jsonl, to_json, write_outputs
from hardsoft.core.labels import Label, Outcome
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv
from hardsoft.prompting.answers import Reading, read_answer

RULE = "=" * 80


def cot_log(rows: list[dict[str, Any]], readings: list[Reading]) -> str:
    """The chain-of-thought log: the overall breakdown, then each skill with its reasoning, its answer and its label."""
    lines = [f"{len(rows)} skills", ""]
    for heading, counts in breakdown(readings).items():
        lines += [
            heading,
            *(f"  {name:<12}{count:>8}{count / max(len(rows), 1):>8.1%}" for name, count in counts.items()),
            "",
        ]
    for row, reading in zip(rows, readings, strict=True):
        lines += [
            RULE,
            f"Skill: {row['skill']}",
            "",
            row["completion"].strip(),
            "",
            f"Read as: {reading.answer or '(no verdict stated)'}",
            f"Label: {reading.label} ({reading.outcome}; {row['tokens']} tokens, finished by {row['finish_reason']})",
            "",
        ]
    return "\n".join(lines)


def breakdown(readings: list[Reading]) -> dict[str, dict[str, int]]:
    """How many readings have each label and each outcome; every name is there, be it with 0."""
    labels = Counter(reading.label for reading in readings)
    outcomes = Counter(reading.outcome for reading in readings)
    return {
        "labels": {label: labels[label] for label in Label},
        "outcomes": {outcome: outcomes[outcome] for outcome in Outcome},
    }


def main() -> None:
    skills = read_csv("data/interim/skills.csv")
    rows = read_jsonl("data/interim/completions.jsonl")
    readings = [read_answer(row["completion"], row["finish_reason"]) for row in rows]
    read = pl.DataFrame(
        {
            "skill": [row["skill"] for row in rows],
            "label": [reading.label.value for reading in readings],
            "outcome": [reading.outcome.value for reading in readings],
        }
    )
    labels = (
        skills.join(read, on="skill", how="left", validate="1:1").select("skill", "label", "outcome", "mentions").sort("skill")
    )
    study_format = labels.select(pl.col("skill").alias("Skill"), "label").write_csv(separator=";")
    write_outputs(
        {
            "data/processed/hard_soft_skills.csv": study_format,
            "data/processed/labels.csv": labels.write_csv(),
            "data/processed/CoT.log": cot_log(rows, readings),
            "metrics/labels.json": to_json({"skills": len(rows), **breakdown(readings)}),
        }
    )


if __name__ == "__main__":
    run("clean", main)
