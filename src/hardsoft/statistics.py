"""Estimates with intervals. statsmodels and scikit-learn do the arithmetic; this file says which of it is the right one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_recall_fscore_support
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Estimate:
    """A proportion in [0, 1] with its interval."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Stratum:
    """A simple random sample from one part of a population."""

    correct: int
    n: int
    size: int
    """Of the part, in the population; >= n."""


def wilson(correct: int, n: int, confidence: float) -> Estimate:
    """A binomial proportion with its Wilson score interval (Wilson 1927, JASA 22:209). n must be >= 1."""
    low, high = proportion_confint(correct, n, alpha=1 - confidence, method="wilson")
    return Estimate(correct / n, float(low), float(high))


def post_stratified(strata: Sequence[Stratum], confidence: float) -> Estimate:
    """The proportion in a population that was sampled by stratum, each stratum weighted by its size.

    The interval combines the strata's Wilson intervals by MOVER, the method of variance estimates recovery
    (Zou, Huang & Zhang 2009, Computational Statistics & Data Analysis 53:3755): for p = sum w_i p_i,
    low = p - sqrt(sum (w_i (p_i - l_i))^2), high = p + sqrt(sum (w_i (u_i - p_i))^2).

    Args:
        strata: at least one, each with n >= 1.
        confidence: in (0, 1).
    """
    total = sum(stratum.size for stratum in strata)
    parts = [(stratum.size / total, wilson(stratum.correct, stratum.n, confidence)) for stratum in strata]
    point = sum(weight * part.accuracy for weight, part in parts)
    below = sqrt(sum((weight * (part.accuracy - part.low)) ** 2 for weight, part in parts))
    above = sqrt(sum((weight * (part.high - part.accuracy)) ** 2 for weight, part in parts))
    return Estimate(point, max(0.0, point - below), min(1.0, point + above))


def agreement(
    truth: Sequence[str], given: Sequence[str], balanced_over: Sequence[str], labels: Sequence[str]
) -> dict[str, object]:
    """How well given labels agree with true ones.

    Args:
        truth, given: of the same length, >= 1, with values from `labels`.
        balanced_over: the labels whose mean recall is the balanced accuracy; any other answer is wrong there.
        labels: all labels, in the order wanted.

    Returns:
        n, accuracy, balanced_accuracy, macro_recall, kappa (Cohen 1960), and per label (lower case) precision, recall, f1.
        What has a zero denominator is None: precision of a label never given, recall of one that is never true, kappa
        where both sides use one and the same label throughout.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(truth, given, labels=list(labels), zero_division=np.nan)
    by_label = {
        label.lower(): {
            "precision": _number(precision[place]),
            "recall": _number(recall[place]),
            "f1": _number(f1[place]),
        }
        for place, label in enumerate(labels)
    }
    recalls = dict(zip(labels, map(_number, recall), strict=True))
    constant = len({*truth, *given}) == 1
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, given)),
        "balanced_accuracy": _mean([recalls[label] for label in balanced_over]),
        "macro_recall": _mean([recalls[label] for label in labels]),
        "kappa": None if constant else float(cohen_kappa_score(truth, given, labels=list(labels))),
        **by_label,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None if a value is missing."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None
