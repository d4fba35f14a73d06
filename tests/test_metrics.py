"""The figures in metrics/accuracy.json, and that what cannot be estimated says why."""

from collections import Counter
from collections.abc import Sequence

import polars as pl
import pytest

from hardsoft.stages.metrics import population_figures, reference_figures, sample_figures
from hardsoft.statistics.intervals import wilson

SCHEMA = {"skill": pl.String, "label": pl.String, "verdict": pl.String, "outcome": pl.String}


def judged(**verdicts: Sequence[str | None]) -> pl.DataFrame:
    """Rows by given label: Hard=["Hard", "Soft", None], …"""
    rows = [
        (f"{label} {place}", label, verdict, "answered" if verdict else "refused")
        for label, given in verdicts.items()
        for place, verdict in enumerate(given)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


STUDY = judged(Hard=["Hard"] * 49 + ["Soft"], Soft=["Soft"] * 23 + ["Hard"] * 27)
SIZES = Counter(Hard=2200, Soft=401, Unknown=226)


def test_the_studys_sample() -> None:
    figures = sample_figures(STUDY, SIZES, 50, 0.95)
    interval = {"correct": 49, "n": 50, "accuracy": 0.98, "low": 0.895, "high": 0.9965}
    assert figures["hard"] == {**interval, "missing": 0, "low_if_wrong": 0.895, "high_if_right": 0.9965}
    assert (figures["soft"]["correct"], figures["soft"]["n"], figures["soft"]["accuracy"]) == (23, 50, 0.46)
    assert (figures["overall"]["correct"], figures["overall"]["n"], figures["overall"]["accuracy"]) == (72, 100, 0.72)


def test_the_studys_population_and_always_answering_hard() -> None:
    population, always_hard = population_figures(STUDY, SIZES, 0.95)
    answered, everything = population["answered"], population["all"]
    assert (answered["accuracy"], answered["low"], answered["high"]) == pytest.approx((0.900, 0.825, 0.925), abs=5e-4)
    assert everything["accuracy"] == pytest.approx(0.828, abs=5e-4)
    assert always_hard["accuracy"] == pytest.approx(0.912, abs=5e-4)


def test_a_verdict_that_is_missing_leaves_the_denominator_and_says_so() -> None:
    figures = sample_figures(judged(Hard=["Hard", None], Soft=[None, None]), Counter(Hard=200, Soft=200), 2, 0.95)
    assert (figures["hard"]["correct"], figures["hard"]["n"], figures["hard"]["missing"]) == (1, 1, 1)
    one_of_two, two_of_two = wilson(1, 2, 0.95), wilson(2, 2, 0.95)
    assert figures["hard"]["low_if_wrong"] == pytest.approx(one_of_two.low, abs=1e-4)
    assert figures["hard"]["high_if_right"] == pytest.approx(two_of_two.high, abs=1e-4)
    assert figures["hard"]["low_if_wrong"] < figures["hard"]["low"]
    assert figures["soft"] == {
        **{"correct": 0, "n": 0, "accuracy": None, "low": None, "high": None, "missing": 2},
        "reason": "the judge gave no verdict (refused 2)",
        "low_if_wrong": round(wilson(0, 2, 0.95).low, 4),
        "high_if_right": round(two_of_two.high, 4),
    }
    population, always_hard = population_figures(judged(Hard=["Hard"], Soft=[None]), Counter(Hard=9, Soft=9), 0.95)
    assert population["answered"]["accuracy"] is None
    assert "Soft: the judge gave no verdict" in population["all"]["reason"]
    assert always_hard["accuracy"] is None


def test_fewer_skills_than_asked_for_are_noted() -> None:
    figures = sample_figures(judged(Hard=["Hard"] * 3, Soft=["Soft"]), Counter(Hard=3, Soft=1, Unknown=2), 3, 0.95)
    assert "note" not in figures["hard"]
    assert figures["soft"]["note"] == "the sample asks for 3 skills; all 1 with this label were taken"


def test_no_skill_of_a_label() -> None:
    rows = judged(Hard=["Hard", "Soft"])
    assert sample_figures(rows, Counter(Hard=2), 5, 0.95)["soft"]["reason"] == "no skill is labelled Soft"
    population, _ = population_figures(rows, Counter(Hard=2, Unknown=2), 0.95)
    assert population["answered"]["accuracy"] == 0.5
    assert population["all"]["accuracy"] == 0.25
    nothing, _ = population_figures(judged(), Counter(Unknown=2), 0.95)
    assert nothing["answered"]["reason"] == "no skill is labelled Hard or Soft"


def test_the_reference_is_matched_by_name_not_by_spelling() -> None:
    labels = pl.DataFrame({"skill": ["Sales", "V-Ray", "Zeal"], "label": ["Hard", "Hard", "Soft"]})
    reference = pl.DataFrame({"key": ["sales", "v-ray"], "label": ["Soft", "Hard"], "note": [None, None]})
    figures, always_hard = reference_figures(labels, reference)
    assert (figures["n"], figures["accuracy"], figures["balanced_accuracy"], always_hard) == (2, 0.5, 0.5, 0.5)
    assert figures["reason"] == "the reference has no skill labelled Unknown"
    assert figures["soft"] == {"precision": None, "recall": 0.0, "f1": 0.0, "reason": "Soft is never given"}


def test_no_reference_gives_nulls_with_the_reason() -> None:
    labels = pl.DataFrame({"skill": ["Sales"], "label": ["Soft"]})
    figures, always_hard = reference_figures(labels, pl.DataFrame(schema=dict.fromkeys(("key", "label", "note"), pl.String)))
    assert (figures["n"], figures["accuracy"], figures["kappa"], always_hard) == (0, None, None, None)
    assert figures["reason"] == figures["hard"]["reason"] == "no labelled skill is in the reference labels"
