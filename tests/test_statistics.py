"""The arithmetic against published and hand-computed figures."""

import pytest

from hardsoft.core.labels import Label
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.intervals import wilson
from hardsoft.statistics.stratified import Stratum, post_stratified

LABELS = list(Label)


def test_wilson_of_the_studys_sample() -> None:
    hard, soft = wilson(49, 50, 0.95), wilson(23, 50, 0.95)
    assert (hard.accuracy, soft.accuracy) == (0.98, 0.46)
    assert (hard.low, hard.high) == pytest.approx((0.895, 0.996), abs=5e-4)
    assert (soft.low, soft.high) == pytest.approx((0.330, 0.596), abs=5e-4)


def test_post_stratification_of_the_studys_sample() -> None:
    estimate = post_stratified([Stratum(49, 50, 2200), Stratum(23, 50, 401)], 0.95)
    assert estimate.accuracy == pytest.approx((2200 * 0.98 + 401 * 0.46) / 2601)
    assert (estimate.low, estimate.high) == pytest.approx((0.825, 0.925), abs=5e-4)


def test_where_most_of_a_population_was_seen_the_interval_shrinks_to_nothing() -> None:
    assert wilson(40, 50, 0.95, size=100) == wilson(40, 50, 0.95), "half of it is not most"
    nine_tenths, whole = wilson(72, 90, 0.95, size=100), wilson(80, 100, 0.95, size=100)
    by_hand = wilson(72, 90, 0.95)  # of n = 90 * 99 / 10 = 891 instead of 90
    assert (nine_tenths.low, nine_tenths.high) == pytest.approx((0.7725, 0.8249), abs=5e-4)
    assert nine_tenths.high - nine_tenths.low < by_hand.high - by_hand.low
    assert (whole.low, whole.accuracy, whole.high) == (0.8, 0.8, 0.8)
    assert post_stratified([Stratum(8, 10, 10), Stratum(3, 5, 5)], 0.95).low == pytest.approx(11 / 15)


def test_one_stratum_is_its_own_wilson_interval() -> None:
    assert post_stratified([Stratum(7, 9, 100)], 0.9) == wilson(7, 9, 0.9)


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
