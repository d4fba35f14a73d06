"""The arithmetic against published and hand-computed figures."""

from math import comb

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, recall_score

from benchmarks.coverage import coverage
from hardsoft.core.labels import Label
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.bootstrap import balanced_accuracy, cells, kappa, macro_f1
from hardsoft.statistics.bootstrap import difference as bootstrap_difference
from hardsoft.statistics.calibration import reliability, risk_coverage
from hardsoft.statistics.intervals import proportion, wilson
from hardsoft.statistics.paired import NO_DIFFERENCE, Paired, difference, holm, p_value, skills_needed, words
from hardsoft.statistics.stratified import Stratum, post_stratified

LABELS = list(Label)


def test_wilson_of_the_studys_sample() -> None:
    hard, soft = wilson(49, 50, 0.95), wilson(23, 50, 0.95)
    assert (hard.value, soft.value) == (0.98, 0.46)
    assert (hard.low, hard.high) == pytest.approx((0.895, 0.996), abs=5e-4)
    assert (soft.low, soft.high) == pytest.approx((0.330, 0.596), abs=5e-4)


def test_post_stratification_of_the_studys_sample() -> None:
    estimate = post_stratified([Stratum(49, 50, 2200), Stratum(23, 50, 401)], 0.95)
    assert estimate.value == pytest.approx((2200 * 0.98 + 401 * 0.46) / 2601)
    assert (estimate.low, estimate.high) == pytest.approx((0.817, 0.927), abs=5e-4)


def test_where_most_of_a_population_was_seen_the_interval_shrinks_to_nothing() -> None:
    assert wilson(40, 50, 0.95, size=100) == wilson(40, 50, 0.95), "half of it is not most"
    nine_tenths, whole = wilson(72, 90, 0.95, size=100), wilson(80, 100, 0.95, size=100)
    by_hand = wilson(72, 90, 0.95)  # of n = 90 * 99 / 10 = 891 instead of 90
    assert (nine_tenths.low, nine_tenths.high) == pytest.approx((0.7725, 0.8249), abs=5e-4)
    assert nine_tenths.high - nine_tenths.low < by_hand.high - by_hand.low
    assert (whole.low, whole.value, whole.high) == (0.8, 0.8, 0.8)
    assert post_stratified([Stratum(8, 10, 10), Stratum(3, 5, 5)], 0.95).low == pytest.approx(11 / 15)


def test_one_stratum_is_its_own_interval() -> None:
    assert post_stratified([Stratum(7, 9, 100)], 0.9) == proportion(7, 9, 0.9, None, "agresti_coull")


@pytest.mark.parametrize("share", [0.5, 0.846, 0.95])
def test_the_populations_interval_covers(share: float) -> None:
    """Exactly, over a part of the grid that benchmarks/coverage.py goes through."""
    found = coverage(share, (10, 20, 50, 100), np.array([0.05, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99]), "agresti_coull")
    assert found.coverage.mean() >= 0.95
    assert found.coverage.min() >= 0.92
    wilson_width = coverage(share, (10, 20, 50, 100), np.array([0.5, 0.9]), "wilson").width.mean()
    assert coverage(share, (10, 20, 50, 100), np.array([0.5, 0.9]), "agresti_coull").width.mean() < 1.06 * wilson_width


def test_a_paired_difference_by_hand() -> None:
    """Newcombe 1998, table II, method 10, on the data of its first example: 36, 12, 2, 0 gives 0.2 (0.0569 to 0.3404)."""
    estimate = difference(Paired(36, 12, 2, 0), 0.95)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-4)
    assert p_value(Paired(36, 12, 2, 0)) == pytest.approx(2 * sum(comb(14, k) for k in range(3)) / 2**14)
    nothing = difference(Paired(10, 0, 0, 0), 0.95)
    assert nothing.value == 0
    assert nothing.low < 0 < nothing.high
    assert (p_value(Paired(10, 0, 0, 0)), words(nothing, "a", "b")) == (1.0, NO_DIFFERENCE)
    assert skills_needed(Paired(10, 0, 0, 0), 0.95) is None
    assert skills_needed(Paired(80, 15, 5, 0), 0.95) == 155


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_bootstrap_scores_are_scikit_learns() -> None:
    random = np.random.default_rng(5)
    truth, new, old = ([LABELS[code].value for code in random.integers(0, 3, 300)] for _ in range(3))
    counts = cells(truth, new, old)
    assert kappa(counts.sum(axis=2)) == pytest.approx(cohen_kappa_score(truth, new))
    assert macro_f1(counts.sum(axis=1)) == pytest.approx(f1_score(truth, old, average="macro"))
    assert balanced_accuracy(counts.sum(axis=2)) == pytest.approx(
        recall_score(truth, new, labels=["Hard", "Soft"], average="macro")
    )
    found = bootstrap_difference(kappa, counts, 0.95)
    assert found is not None
    assert found.low < found.value < found.high
    assert bootstrap_difference(kappa, cells(truth[:100], new[:100], old[:100]), 0.95) is None
    assert bootstrap_difference(balanced_accuracy, cells(["Hard"] * 300, new, old), 0.95) is None


def test_probabilities_that_are_right_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    confidence = random.uniform(0.4, 1, 20_000)
    right = (random.random(20_000) < confidence).astype(float)
    bins, error = reliability(confidence, right, np.ones(20_000), 0.95)
    assert (bins.height, bins["skills"].sum()) == (15, 20_000)
    assert error < 0.02
    assert reliability(np.ones(50), np.zeros(50), np.ones(50), 0.95)[1] == pytest.approx(1.0)
    curve = risk_coverage(confidence, right, np.ones(20_000))
    assert curve.height == 100
    assert curve["coverage"][-1] == 1.0
    assert curve["accuracy"][-1] == pytest.approx(right.mean())
    assert curve["accuracy"][10] > 0.95
    tied = risk_coverage(np.full(10, 0.5), np.array([1.0] * 5 + [0.0] * 5), np.ones(10))
    assert tied.rows() == [(1.0, 0.5, 0.5)]


def test_agreement_by_hand() -> None:
    truth = ["Hard"] * 6 + ["Soft"] * 3 + ["Unknown"]
    given = ["Hard"] * 5 + ["Unknown"] + ["Soft", "Hard", "Soft"] + ["Hard"]
    result = agreement(truth, given, ["Hard", "Soft"], LABELS)
    assert result["n"] == 10
    assert result["accuracy"] == pytest.approx(0.7)
    assert result["balanced_accuracy"] == pytest.approx((5 / 6 + 2 / 3) / 2)
    assert result["macro_recall"] == pytest.approx((5 / 6 + 2 / 3 + 0) / 3)
    assert result["hard"] == pytest.approx({"precision": 5 / 7, "recall": 5 / 6, "f1": 10 / 13})
    assert result["soft"] == pytest.approx({"precision": 1.0, "recall": 2 / 3, "f1": 0.8})
    expected = 0.6 * 0.7 + 0.3 * 0.2 + 0.1 * 0.1
    assert result["kappa"] == pytest.approx((0.7 - expected) / (1 - expected))


def test_what_has_no_denominator_is_none() -> None:
    result = agreement(["Hard", "Hard"], ["Hard", "Hard"], ["Hard", "Soft"], LABELS)
    assert result["accuracy"] == 1.0
    assert result["kappa"] is None
    assert result["balanced_accuracy"] is None
    assert result["soft"] == {"precision": None, "recall": None, "f1": None}
