"""Stage clean: from completions to labels, with every completion kept in a log that a person can read."""

import shutil
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

import polars as pl

from hardsoft.config.load import load_config
from hardsoft.core import paths
from hardsoft.core.files import to_json, writing
from hardsoft.core.labels import Label, Outcome
from hardsoft.core.runner import run
from hardsoft.prompting.answers import Reading, read_answer
from hardsoft.stages import tables
from hardsoft.stages.tables import CompletionRow

LABEL_COLUMNS = {"skill": pl.String, "label": pl.String, "outcome": pl.String}
OUTPUTS = (paths.STUDY_LABELS, paths.LABELS, paths.COMPLETION_LOG, paths.LABEL_METRICS)
RULE = "=" * 80


def reading(row: CompletionRow, doubted: Container[str] = ()) -> Reading:
    """What a row's completion says; of doubted skills, that it abstains."""
    read = read_answer(row["completion"], row["finish_reason"])
    if read.outcome is Outcome.ANSWERED and row["skill"] in doubted:
        return Reading(Label.UNKNOWN, Outcome.ABSTAINED, read.answer)
    return read


def doubted_skills(abstain_below: float | None) -> set[str]:
    """The skills whose likeliest label is less likely than so much; none where no probabilities are known."""
    if abstain_below is None:
        return set()
    table = tables.probabilities()
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


def log_entry(row: CompletionRow, read: Reading) -> str:
    """A skill in the log: its reasoning, its answer and its label."""
    return (
        f"{RULE}\nSkill: {row['skill']}\n\n{row['completion'].strip()}\n\nRead as: {read.answer or '(no verdict stated)'}\n"
        f"Label: {read.label} ({read.outcome}; {row['tokens']} tokens, finished by {row['finish_reason']})\n\n"
    )


def read_completions(doubted: Container[str], entries: TextIO) -> Iterator[tuple[str, str, str]]:
    """Each completion's skill, label and outcome; its entry in the log is written meanwhile, since there may be millions."""
    for row in tables.completions():
        read = reading(row, doubted)
        entries.write(log_entry(row, read))
        yield row["skill"], read.label.value, read.outcome.value


def main() -> None:
    doubted = doubted_skills(load_config().clean.abstain_below)
    skills = tables.skills()
    folder = Path(paths.COMPLETION_LOG).parent
    with (
        writing(*OUTPUTS) as (study_format, table, log, metrics),
        TemporaryFile("w+", encoding="utf-8", newline="", dir=folder) as entries,  # the log begins with counts of them all
    ):
        read = pl.DataFrame(read_completions(doubted, entries), schema=LABEL_COLUMNS, orient="row")
        labels = skills.join(read, on="skill", how="left", validate="1:1").sort("skill")
        labels = labels.select("skill", "label", "outcome", "mentions")
        counts = breakdown(labels)
        study_format.write(labels.select(pl.col("skill").alias("Skill"), "label").write_csv(separator=";"))
        table.write(labels.write_csv())
        log.write(log_head(read.height, counts))
        entries.seek(0)
        shutil.copyfileobj(entries, log)
        metrics.write(to_json({"skills": read.height, **counts}))


if __name__ == "__main__":
    run("clean", main)
