"""The log that a person reads."""

from hardsoft.prompting.answers import read_answer
from hardsoft.stages.clean import breakdown, cot_log

ROWS = [
    {"skill": "V-Ray", "completion": "Step 1: Software.\nAnswer: Hard", "finish_reason": "stop", "tokens": 9},
    {"skill": "Ammonia", "completion": "Step 1: It is", "finish_reason": "length", "tokens": 4},
]


def test_the_log_begins_with_the_breakdown_and_keeps_every_completion() -> None:
    log = cot_log(ROWS, [read_answer(str(row["completion"]), row["finish_reason"]) for row in ROWS])  # type: ignore[arg-type]
    head, first, second = log.split("=" * 80)
    assert head.startswith("2 skills")
    assert "Hard               1   50.0%" in head
    assert "truncated          1   50.0%" in head
    assert "Skill: V-Ray\n\nStep 1: Software.\nAnswer: Hard\n\nRead as: Answer: Hard\nLabel: Hard (answered; 9 tokens" in first
    assert "Read as: (no verdict stated)\nLabel: Unknown (truncated; 4 tokens, finished by length)" in second


def test_every_label_and_outcome_is_counted_even_at_zero() -> None:
    assert breakdown([]) == {
        "labels": {"Hard": 0, "Soft": 0, "Unknown": 0},
        "outcomes": {"answered": 0, "abstained": 0, "truncated": 0, "unparseable": 0, "error": 0},
    }
