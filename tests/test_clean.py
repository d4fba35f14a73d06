"""The log that a person reads."""

import polars as pl

from hardsoft.stages.clean import breakdown, log_entry, log_head, reading
from hardsoft.stages.tables import CompletionRow
from tests.support.repositories import Repository

ROWS: list[CompletionRow] = [
    {"skill": "V-Ray", "completion": "Step 1: Software.\nAnswer: Hard", "finish_reason": "stop", "tokens": 9},
    {"skill": "Ammonia", "completion": "Step 1: It is", "finish_reason": "length", "tokens": 4},
]


def test_the_log_begins_with_the_breakdown_and_keeps_every_completion() -> None:
    readings = [reading(row) for row in ROWS]
    table = {"label": [read.label.value for read in readings], "outcome": [read.outcome.value for read in readings]}
    log = log_head(2, breakdown(pl.DataFrame(table))) + "".join(map(log_entry, ROWS, readings))
    head, first, second = log.split("=" * 80)
    assert head.startswith("2 skills")
    assert "Hard               1   50.0%" in head
    assert "truncated          1   50.0%" in head
    assert "Skill: V-Ray\n\nStep 1: Software.\nAnswer: Hard\n\nRead as: Answer: Hard\nLabel: Hard (answered; 9 tokens" in first
    assert "Read as: (no verdict stated)\nLabel: Unknown (truncated; 4 tokens, finished by length)" in second


def test_every_label_and_outcome_is_counted_even_at_zero() -> None:
    assert breakdown(pl.DataFrame(schema={"label": pl.String, "outcome": pl.String})) == {
        "labels": {"Hard": 0, "Soft": 0, "Unknown": 0},
        "outcomes": {"answered": 0, "abstained": 0, "truncated": 0, "unparseable": 0, "error": 0},
    }


def test_labels_below_a_confidence_become_unknown(repository: Repository) -> None:
    table = pl.read_csv(repository.path / "data/interim/probabilities.csv")
    threshold = float(table.select(pl.max_horizontal("hard", "soft", "unknown").median()).item())
    doubted = set(table.filter(pl.max_horizontal("hard", "soft", "unknown") < threshold)["skill"])
    before = pl.read_csv(repository.path / "data/processed/labels.csv")
    repository.configure(f"clean.abstain_below={threshold}")
    repository.staged("clean")
    after = pl.read_csv(repository.path / "data/processed/labels.csv")
    assert doubted
    assert set(after.filter(pl.col("outcome") == "abstained")["skill"]) == doubted | set(
        before.filter(pl.col("outcome") == "abstained")["skill"]
    )
    assert set(after.filter(pl.col("skill").is_in(list(doubted)))["label"]) == {"Unknown"}
    assert "Label: Unknown (abstained;" in repository.read("data/processed/CoT.log")
