"""Differences of balanced accuracy, kappa and F1 between two labellings of the same skills, with bootstrap intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hardsoft.core.labels import Label
from hardsoft.statistics.intervals import Estimate

Counts = npt.NDArray[np.int_]
"""Of skills, [..., true label, label given], in the order of Label."""
Floats = npt.NDArray[np.float64]
ENOUGH = 200
"""Skills below which a percentile interval is too narrow to be shown."""
RESAMPLES = 2000


def balanced_accuracy(counts: Counts) -> Floats:
    """The mean recall of Hard and Soft, an Unknown answer being wrong; NaN where one of them is never true."""
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls: Floats = np.diagonal(counts, axis1=-2, axis2=-1) / counts.sum(axis=-1)
    return np.asarray(recalls[..., :2].mean(axis=-1))


def kappa(counts: Counts) -> Floats:
    """Cohen's kappa; NaN where both sides use one and the same label."""
    n = counts.sum(axis=(-2, -1))
    agreed = np.trace(counts, axis1=-2, axis2=-1) / n
    chance = (counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((agreed - chance) / (1 - chance))


def macro_f1(counts: Counts) -> Floats:
    """The mean F1 of the three labels, 0 for one that is never given nor true."""
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.asarray((2 * np.diagonal(counts, axis1=-2, axis2=-1) / np.maximum(both, 1)).mean(axis=-1))


def cells(truth: Sequence[str], new: Sequence[str], old: Sequence[str]) -> Counts:
    """Skills by true label, new label and old label."""
    codes = {label.value: code for code, label in enumerate(Label)}
    counts = np.zeros((3, 3, 3), dtype=int)
    np.add.at(counts, tuple(np.array([codes[label] for label in side]) for side in (truth, new, old)), 1)
    return counts


def difference(score: Callable[[Counts], Floats], counts: Counts, confidence: float, seed: int = 0) -> Estimate | None:
    """A score of the new labels minus that of the old, with a paired percentile interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        score: `balanced_accuracy`, `kappa` or `macro_f1`.
        counts: as `cells` returns them; drawing skills with replacement is drawing from these.
        confidence: in (0, 1).

    Returns:
        None below ENOUGH skills, or where the score is not defined.
    """
    n = int(counts.sum())
    if n < ENOUGH or np.isnan(seen := float(score(counts.sum(axis=2)) - score(counts.sum(axis=1)))):
        return None
    draws = np.random.default_rng(seed).multinomial(n, counts.ravel() / n, size=RESAMPLES).reshape(-1, 3, 3, 3)
    values = score(draws.sum(axis=3)) - score(draws.sum(axis=2))
    low, high = np.nanquantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(seen, float(low), float(high))
