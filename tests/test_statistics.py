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
