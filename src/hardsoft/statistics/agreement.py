"""How well given labels agree with true ones, and raters with each other; libraries do the arithmetic."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import krippendorff
import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_recall_fscore_support
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

Ratings = dict[tuple[str, int], list[str | None]]
"""By rater and repeat, a label for each of the same items, in one order; None where there is none."""


def agreement(
    truth: Sequence[str],
    given: Sequence[str],
    balanced_over: Sequence[str],
    labels: Sequence[str],
    weights: npt.NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """How well given labels agree with true ones.

    Args:
        truth, given: of the same length, >= 1, with values from `labels`.
        balanced_over: the labels whose mean recall is the balanced accuracy; any other answer is wrong there.
        labels: all labels, in the order wanted.
        weights: of the items; None for equal ones.

    Returns:
        n, accuracy, balanced_accuracy, macro_recall, kappa (Cohen 1960), and per label (lower case) precision, recall, f1.
        What has a zero denominator is None: precision of a label never given, recall of one that is never true, kappa
        where both sides use one and the same label throughout.
    """
    codes = {label: code for code, label in enumerate(labels)}
    truth_codes, given_codes = (np.array([codes[label] for label in side]) for side in (truth, given))
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth_codes, given_codes, labels=range(len(labels)), zero_division=np.nan, sample_weight=weights
    )
    by_label = {
        label.lower(): {
            "precision": _number(precision[place]),
            "recall": _number(recall[place]),
            "f1": _number(f1[place]),
        }
        for place, label in enumerate(labels)
    }
    recalls = dict(zip(labels, map(_number, recall), strict=True))
    constant = len(np.union1d(truth_codes, given_codes)) == 1
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth_codes, given_codes, sample_weight=weights)),
        "balanced_accuracy": _mean([recalls[label] for label in balanced_over]),
        "macro_recall": _mean([recalls[label] for label in labels]),
        "kappa": None
        if constant
        else float(cohen_kappa_score(truth_codes, given_codes, labels=range(len(labels)), sample_weight=weights)),
        **by_label,
    }


def raters_agreement(ratings: Ratings) -> dict[str, object]:
    """How well raters agree with each other, and each with itself.

    Returns:
        krippendorff_alpha (nominal; Krippendorff 2004, over all items with two labels or more), fleiss_kappa (Fleiss 1971, over
        the items that everyone labelled), kappa by pair (Cohen 1960, each rater's first labels, over the items that both
        labelled), and flip_rate by rater: the share of the items labelled twice or more whose labels are not all one. What
        cannot be computed, for want of a second rater or of a second label, is None.
    """
    columns = list(ratings.values())
    items = list(zip(*columns, strict=True))
    codes = {label: code for code, label in enumerate(sorted({label for item in items for label in item if label}))}
    coded = np.array([[np.nan if label is None else codes[label] for label in column] for column in columns], dtype=float)
    pairable = sum(sum(label is not None for label in item) > 1 for item in items)
    complete = [item for item in items if None not in item]
    several = len(columns) > 1 and len(codes) > 1
    fleiss = None
    if several and len({label for item in complete for label in item}) > 1:
        fleiss = float(fleiss_kappa(aggregate_raters([[codes[label] for label in item] for item in complete if item])[0]))
    alpha = float(krippendorff.alpha(coded, level_of_measurement="nominal")) if several and pairable else None
    raters = list(dict.fromkeys(rater for rater, _ in ratings))
    return {
        "krippendorff_alpha": _rounded(alpha),
        "fleiss_kappa": _rounded(fleiss),
        "kappa": {f"{rater}, {other}": _kappa(ratings[rater, 1], ratings[other, 1]) for rater, other in combinations(raters, 2)},
        "flip_rate": {rater: _flip_rate([column for (name, _), column in ratings.items() if name == rater]) for rater in raters},
    }


def _kappa(labels: Sequence[str | None], others: Sequence[str | None]) -> float | None:
    pairs = [(label, other) for label, other in zip(labels, others, strict=True) if label and other]
    if len({label for pair in pairs for label in pair}) < 2:
        return None
    return _rounded(float(cohen_kappa_score(*zip(*pairs, strict=True))))


def _flip_rate(columns: Sequence[Sequence[str | None]]) -> float | None:
    several = [labels for item in zip(*columns, strict=True) if len(labels := [label for label in item if label]) > 1]
    return _rounded(sum(len(set(labels)) > 1 for labels in several) / len(several)) if several else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(value, 4)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None if a value is missing."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None
