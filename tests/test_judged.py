"""The judge judged: by hand, by simulation, and that the words say what is missing."""

import numpy as np
import polars as pl
import pytest

from hardsoft.judging.consensus import VERDICT_COLUMNS, consensus
from hardsoft.statistics.agreement import raters_agreement
from hardsoft.statistics.intervals import kish, wilson
from hardsoft.statistics.judge_quality import corrected_accuracy, judge_figures, kappa
from hardsoft.statistics.ppi import Judged, corrected


def rows(*groups: tuple[str, str, str | None, int]) -> pl.DataFrame:
    """(label, verdict, truth, so many)."""
    table = [(label, verdict, truth, 1.0) for label, verdict, truth, count in groups for _ in range(count)]
    return pl.DataFrame(
        table, schema={"label": pl.String, "verdict": pl.String, "truth": pl.String, "weight": pl.Float64}, orient="row"
    )


def test_sensitivity_and_specificity_by_hand() -> None:
    table = rows(
        ("Hard", "Hard", "Hard", 16), ("Hard", "Soft", "Hard", 4), ("Hard", "Soft", "Soft", 3), ("Soft", "Soft", "Hard", 1)
    )
    figures = judge_figures(table, 0.95)
    assert (figures["n"], figures["sensitivity"]["value"], figures["specificity"]["value"]) == (24, 0.8, 0.75)
    assert figures["sensitivity"]["low"] == pytest.approx(wilson(16, 20, 0.95).low, abs=1e-4)
    assert "24 skills have both" in figures["warning"]
    assert "warning" not in judge_figures(rows(("Hard", "Hard", "Hard", 150), ("Soft", "Soft", "Soft", 50)), 0.95)
    assert judge_figures(rows(), 0.95)["kappa"]["reason"] == "no judged skill has a reference label"
    assert judge_figures(rows(("Hard", "Hard", "Hard", 9)), 0.95)["specificity"]["value"] is None


def test_weights_count() -> None:
    table = rows(("Hard", "Hard", "Hard", 1), ("Soft", "Hard", "Soft", 1)).with_columns(weight=pl.Series([3.0, 1.0]))
    assert judge_figures(table, 0.95)["sensitivity"]["value"] == 0.75
    assert kish(np.array([3.0, 1.0])) == pytest.approx(1.6)


def test_kappa_has_an_interval_that_perfect_agreement_does_not_close() -> None:
    perfect = kappa(["Hard"] * 10 + ["Soft"] * 10, ["Hard"] * 10 + ["Soft"] * 10, 0.95)
    assert perfect is not None
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.6 < perfect.low < 0.75
    assert kappa(["Hard"] * 5, ["Hard"] * 5, 0.95) is None


@pytest.mark.parametrize("truth_share", [0.5, 0.9])
def test_kappas_interval_covers(truth_share: float) -> None:
    random = np.random.default_rng(1)
    agreement = 0.85
    expected = truth_share * agreement + (1 - truth_share) * (1 - agreement)
    chance = truth_share * expected + (1 - truth_share) * (1 - expected)
    value = (agreement - chance) / (1 - chance)
    hits = 0
    for _ in range(400):
        truth = random.random(100) < truth_share
        given = np.where(random.random(100) < agreement, truth, ~truth)
        estimate = kappa([str(one) for one in truth], [str(one) for one in given], 0.95)
        hits += estimate is not None and estimate.low <= value <= estimate.high
    assert hits / 400 > 0.9


def test_what_the_judge_gets_wrong_is_corrected() -> None:
    """A judge that calls a quarter of the right labels wrong; a fifth of its sample has been labelled by hand."""
    known = [("Hard", "Hard", "Hard", 15), ("Hard", "Soft", "Hard", 5)]
    table = rows(*known, ("Hard", "Hard", None, 300), ("Hard", "Soft", None, 100))
    estimate = corrected_accuracy(table, {"Hard": 5000}, 0.95)
    assert not isinstance(estimate, str)
    assert estimate.value == 1.0
    assert estimate.low < 1.0


def test_why_nothing_is_corrected() -> None:
    everything = rows(("Hard", "Hard", "Hard", 9))
    assert "every judged skill has a reference label" in str(corrected_accuracy(everything, {"Hard": 9}, 0.95))
    one = rows(("Hard", "Hard", "Hard", 1), ("Hard", "Hard", None, 8))
    assert corrected_accuracy(one, {"Hard": 9}, 0.95) == "Hard: 1 judged skills have a reference label; two are the least"
    assert corrected_accuracy(rows(), {"Hard": 9}, 0.95) == "no judged skill has a reference label"


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.97])
@pytest.mark.parametrize("skill", [0.5, 0.9])
def test_the_corrected_interval_covers_and_is_narrower_than_the_truths_alone(accuracy: float, skill: float) -> None:
    random = np.random.default_rng(7)
    hits, width, alone = 0, 0.0, 0.0
    repeats, known, seen = 400, 60, 300
    for _ in range(repeats):
        right = (random.random(seen) < accuracy).astype(float)
        judged = np.where(random.random(seen) < skill, right, 1 - right)
        estimate = corrected(Judged(judged, np.where(np.arange(seen) < known, right, np.nan), np.ones(seen)), 0.95)
        hits += estimate.low <= accuracy <= estimate.high
        width += estimate.high - estimate.low
        truths = wilson(right[:known].sum(), known, 0.95)
        alone += truths.high - truths.low
    assert hits / repeats >= 0.9
    assert width <= 1.01 * alone
    if skill == 0.9:
        assert width < 0.95 * alone


def test_a_consensus_is_what_most_say() -> None:
    given = [
        ("a", "j", 1, "Hard", "answered"),
        ("a", "k", 1, "Hard", "answered"),
        ("a", "l", 1, "Soft", "answered"),
        ("b", "j", 1, "Hard", "answered"),
        ("b", "k", 1, "Soft", "answered"),
        ("c", "j", 1, None, "refused"),
        ("c", "k", 1, "Unknown", "answered"),
        ("d", "j", 1, None, "refused"),
        ("d", "k", 1, None, "error"),
    ]
    table = consensus(pl.DataFrame(given, schema=VERDICT_COLUMNS, orient="row"))
    assert table.rows() == [
        ("a", "Hard", "answered"),
        ("b", None, "tied"),
        ("c", "Unknown", "answered"),
        ("d", None, "refused"),
    ]


def test_raters_agreement_by_hand() -> None:
    agreement = raters_agreement(
        {("a", 1): ["x", "x", "y", None], ("a", 2): ["x", "y", "y", "y"], ("b", 1): ["x", "x", "x", "y"]}
    )
    assert agreement["flip_rate"] == {"a": pytest.approx(1 / 3, abs=1e-4), "b": None}
    # the first raters' pairs: xx, xx, yx: 2 of 3 agree, by chance 2/3 * 1
    assert agreement["kappa"] == {"a, b": 0.0}
    # Fleiss over three complete items: (1 + 1/3 + 1/3) / 3 = 5/9 agree, by chance (6/9)^2 + (3/9)^2 = 5/9
    assert agreement["fleiss_kappa"] == pytest.approx(0.0)
    assert agreement["krippendorff_alpha"] is not None
    same = raters_agreement({("a", 1): ["x", "x"], ("b", 1): ["x", "x"]})
    assert (same["krippendorff_alpha"], same["fleiss_kappa"], same["kappa"]) == (None, None, {"a, b": None})
