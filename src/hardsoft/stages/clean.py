"""Stage clean: from completions to labels, with every completion kept in a log that a person can read."""

from collections import Counter
from collections.abc import Container, Mapping

import polars as pl

from hardsoft.config.schema import load_config
from hardsoft.core import paths
from hardsoft.core.files import to_json, writing
from hardsoft.core.labels import Label, Outcome
from hardsoft.core.runner import run
from hardsoft.prompting.answers import Reading, read_answer
from hardsoft.stages import tables
from hardsoft.stages.tables import CompletionRow

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


def main() -> None:
    doubted = doubted_skills(load_config().clean.abstain_below)
    skills = tables.skills()
    read = pl.DataFrame(
        ((row["skill"], one.label.value, one.outcome.value) for row in tables.completions() for one in [reading(row, doubted)]),
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
        log.writelines(log_entry(row, reading(row, doubted)) for row in tables.completions())
        metrics.write(to_json({"skills": read.height, **counts}))


if __name__ == "__main__":
    run("clean", main)
