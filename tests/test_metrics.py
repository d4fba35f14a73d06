"""The figures in metrics/accuracy.json, and that what cannot be estimated says why."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from hardsoft.config.samples import PerLabelSampleConfig
from hardsoft.stages.metrics import note_small_labels
from hardsoft.statistics.against_reference import reference_figures
from hardsoft.statistics.intervals import wilson
from hardsoft.statistics.population import against_always_hard, mention_accuracy, population_figures, sample_figures
from hardsoft.statistics.sampling import per_label

SCHEMA = {"skill": pl.String, "label": pl.String, "verdict": pl.String, "outcome": pl.String, "weight": pl.Float64}


def judged(**verdicts: Sequence[str | None]) -> pl.DataFrame:
    """Rows by given label: Hard=["Hard", "Soft", None], …"""
    rows = [
        (f"{label} {place}", label, verdict, "answered" if verdict else "refused", 1.0)
        for label, given in verdicts.items()
        for place, verdict in enumerate(given)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


PUBLISHED = Path(__file__).parents[2] / "shared/study/hard_soft_skills.csv"
STUDY = judged(Hard=["Hard"] * 49 + ["Soft"], Soft=["Soft"] * 23 + ["Hard"] * 27)
SIZES = Counter(Hard=2200, Soft=401, Unknown=226)


def test_the_studys_sample() -> None:
    figures = sample_figures(STUDY, SIZES, 0.95)
    interval = {"correct": 49, "n": 50, "accuracy": 0.98, "low": 0.895, "high": 0.9965}
    assert figures["hard"] == {**interval, "missing": 0, "low_if_wrong": 0.895, "high_if_right": 0.9965}
    assert (figures["soft"]["correct"], figures["soft"]["n"], figures["soft"]["accuracy"]) == (23, 50, 0.46)
    assert (figures["overall"]["correct"], figures["overall"]["n"], figures["overall"]["accuracy"]) == (72, 100, 0.72)


def test_the_studys_population_and_always_answering_hard() -> None:
    population, always_hard = population_figures(STUDY, SIZES, 0.95)
    answered, everything = population["answered"], population["all"]
    assert (answered["accuracy"], answered["low"], answered["high"]) == pytest.approx((0.900, 0.817, 0.927), abs=5e-4)
    assert everything["accuracy"] == pytest.approx(0.828, abs=5e-4)
    assert always_hard["accuracy"] == pytest.approx(0.912, abs=5e-4)


def test_a_verdict_that_is_missing_leaves_the_denominator_and_says_so() -> None:
    figures = sample_figures(judged(Hard=["Hard", None], Soft=[None, None]), Counter(Hard=200, Soft=200), 0.95)
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
    sizes = Counter(Hard=3, Soft=1, Unknown=2)
    figures = sample_figures(judged(Hard=["Hard"] * 3, Soft=["Soft"]), sizes, 0.95)
    option = PerLabelSampleConfig(
        kind="per_label", per_label=3, allocation="equal", expected_precision={}, seed=1, dep="data/processed/labels.csv"
    )
    note_small_labels(figures, sizes, option)
    assert "note" not in figures["hard"]
    assert figures["soft"]["note"] == "the sample asks for 3 skills; all 1 with this label were taken"


def test_no_skill_of_a_label() -> None:
    rows = judged(Hard=["Hard", "Soft"])
    assert sample_figures(rows, Counter(Hard=2), 0.95)["soft"]["reason"] == "no skill is labelled Soft"
    population, _ = population_figures(rows, Counter(Hard=2, Unknown=2), 0.95)
    assert population["answered"]["accuracy"] == 0.5
    assert population["all"]["accuracy"] == 0.25
    nothing, _ = population_figures(judged(), Counter(Unknown=2), 0.95)
    assert nothing["answered"]["reason"] == "no skill is labelled Hard or Soft"


def test_agreement_with_the_reference() -> None:
    truths = pl.DataFrame({"skill": ["Sales", "V-Ray"], "label": ["Hard", "Hard"], "truth": ["Soft", "Hard"]})
    figures, always_hard = reference_figures(truths)
    assert (figures["n"], figures["accuracy"], figures["balanced_accuracy"], always_hard) == (2, 0.5, 0.5, 0.5)
    assert figures["reason"] == "the reference has no skill labelled Unknown"
    assert figures["soft"] == {"precision": None, "recall": 0.0, "f1": 0.0, "reason": "Soft is never given"}


def test_no_reference_gives_nulls_with_the_reason() -> None:
    nothing = pl.DataFrame(schema=dict.fromkeys(("skill", "label", "truth"), pl.String))
    figures, always_hard = reference_figures(nothing)
    assert (figures["n"], figures["accuracy"], figures["kappa"], always_hard) == (0, None, None, None)
    assert figures["reason"] == figures["hard"]["reason"] == "no labelled skill is in the reference labels"


def test_the_study_shows_no_difference_from_always_answering_hard() -> None:
    found = against_always_hard(STUDY, SIZES, 0.95)
    assert found["value"] == pytest.approx(0.900 - 0.912, abs=1e-3)
    assert found["low"] < 0 < found["high"]
    assert found["says"] == "no difference shown"
    better = against_always_hard(judged(Hard=["Hard"] * 50, Soft=["Soft"] * 45 + ["Hard"] * 5), SIZES, 0.95)
    assert better["says"] == "labelling is better"
    assert against_always_hard(judged(Hard=["Hard"]), Counter(Hard=5), 0.95)["reason"] == "no skill is labelled Soft"


def test_weights_within_a_label_count() -> None:
    """A label of whose skills a baseline called some Soft: those were drawn three times as often."""
    rows = judged(Hard=["Hard"] * 30 + ["Soft"] * 30).with_columns(weight=pl.Series([3.0] * 30 + [1.0] * 30))
    figures = sample_figures(rows, Counter(Hard=1000), 0.95)["hard"]
    assert figures["accuracy"] == 0.75
    even = sample_figures(rows.with_columns(weight=pl.lit(1.0)), Counter(Hard=1000), 0.95)["hard"]
    assert figures["high"] - figures["low"] > 0.9 * (even["high"] - even["low"])


def test_accuracy_by_mention_by_hand() -> None:
    """One skill of 600 of 1,000 mentions was drawn for sure and is right; of ten others, which stand for the rest, seven are."""
    rows = judged(Hard=["Hard"] * 8 + ["Soft"] * 3).with_columns(
        weight=pl.Series([1.0] + [4.0] * 10), mentions=pl.Series([600] + [10] * 10)
    )
    estimate = mention_accuracy(rows, 1000, 0.95)
    assert not isinstance(estimate, str)
    assert estimate.value == pytest.approx(0.6 + 0.4 * 0.7)
    part = wilson(7, 10, 0.95)
    assert (estimate.low, estimate.high) == pytest.approx((0.6 + 0.4 * part.low, 0.6 + 0.4 * part.high))
    assert mention_accuracy(rows.clear(), 1000, 0.95) == "no skill was sampled"


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the study's labels are not here (../shared/study)")
def test_the_studys_figures_from_its_published_labels() -> None:
    """50 of its labels of each kind, drawn as the pipeline draws, with as many right as o3 said."""
    labels = pl.read_csv(PUBLISHED, separator=";", infer_schema=False).select(skill="Skill", label="label")
    sizes = Counter(labels["label"].to_list())
    drawn = per_label(labels, {"Hard": 50, "Soft": 50}, seed=42)
    verdicts = ["Hard"] * 49 + ["Soft"] + ["Soft"] * 23 + ["Hard"] * 27
    rows = drawn.with_columns(verdict=pl.Series(verdicts), outcome=pl.lit("answered"))
    figures = sample_figures(rows, sizes, 0.95)
    assert (figures["hard"]["accuracy"], figures["hard"]["low"], figures["hard"]["high"]) == pytest.approx(
        (0.98, 0.895, 0.996), abs=1e-3
    )
    assert (figures["soft"]["accuracy"], figures["soft"]["low"], figures["soft"]["high"]) == pytest.approx(
        (0.46, 0.33, 0.596), abs=1e-3
    )
    population, always_hard = population_figures(rows, sizes, 0.95)
    assert population["answered"]["accuracy"] == pytest.approx(0.900, abs=5e-4)
    assert population["all"]["accuracy"] == pytest.approx(0.828, abs=5e-4)
    assert always_hard["accuracy"] == pytest.approx(0.912, abs=5e-4)
    assert against_always_hard(rows, sizes, 0.95)["says"] == "no difference shown"
