"""Prediction-powered inference: many judged items, some of them with the truth too, and what that says of all."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardsoft.statistics.intervals import Estimate, kish, wilson

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A random sample from one part of a population, judged, and in part labelled truly."""

    judged_right: Array
    """Of each item, 1 where the judge calls it right, else 0."""
    right: Array
    """1 where it is right, 0 where not, NaN where nobody knows; the known ones are a random part of the sample."""
    weights: Array
    """1 / inclusion probability."""


def corrected(sample: Judged, confidence: float) -> Estimate:
    """The share of right items in a part of a population, the judge's errors corrected.

    PPI++ for a mean (Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453): lambda mean(judged) + mean(right - lambda judged), the
    first mean over the items without truth, the second over those with it, and the lambda of least variance, within [0, 1]; where
    the judge is no help it is 0, and the truths alone count. The interval is Wilson's at the number of truths that would give the
    same variance, which is at least the truths there are, and at most the items there are. Variances are estimated with half an
    item added to each cell of the table of judge and truth (as for log odds: Haldane 1956, Annals of Human Genetics 20:309): a
    normal interval, or one without these, has no width where the truths that one happens to have are all alike.

    Args:
        sample: with at least two items of known truth.
        confidence: in (0, 1).
    """
    known = ~np.isnan(sample.right)
    truth, seen, weights = sample.right[known], sample.judged_right[known], sample.weights[known]
    rest, rest_weights = sample.judged_right[~known], sample.weights[~known]
    m, u = kish(weights), kish(rest_weights)
    mean = float(np.average(truth, weights=weights))
    if u == 0:
        return wilson(mean * m, m, confidence)
    spread = _covariance(truth, seen, weights)
    tuned = float(np.clip(spread[0, 1] / ((1 + m / u) * spread[1, 1]), 0, 1))
    shift = np.average(rest, weights=rest_weights) - np.average(seen, weights=weights)
    point = min(1.0, max(0.0, mean + tuned * float(shift)))
    variance = (spread[0, 0] - 2 * tuned * spread[0, 1] + tuned**2 * spread[1, 1]) / m + tuned**2 * spread[1, 1] / u
    worth = min(m + u, max(m, float(spread[0, 0] / variance)))
    return wilson(point * worth, worth, confidence)


def _covariance(truth: Array, seen: Array, weights: Array) -> Array:
    """Of two binary variables, with half an item added for each of the four pairs of values: none of the variances is 0."""
    pairs = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    values = np.concatenate([np.stack([truth, seen], axis=1), pairs])
    scaled = np.concatenate([weights * kish(weights) / weights.sum(), np.full(4, 0.5)])
    result: Array = np.cov(values.T, aweights=scaled, ddof=0)
    return result
