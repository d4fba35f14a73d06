"""One proportion with its interval."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Estimate:
    """A proportion in [0, 1] with its interval."""

    accuracy: float
    low: float
    high: float


def kish(weights: npt.NDArray[np.float64]) -> float:
    """The number of equally weighted items that are worth as much as these (Kish 1965, Survey Sampling, section 11.7)."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def wilson(correct: float, n: float, confidence: float, size: int | None = None) -> Estimate:
    """A proportion with its Wilson score interval (Wilson 1927, JASA 22:209); see `proportion`."""
    return proportion(correct, n, confidence, size, "wilson")


def proportion(correct: float, n: float, confidence: float, size: int | None, method: str) -> Estimate:
    """A proportion with its interval.

    Where more than half of a finite population was seen, n counts as n (N - 1) / (N - n) in the interval, since the variance of a
    sample without replacement is smaller by that factor (Cochran 1977, Sampling Techniques, section 3.2); of a whole population
    nothing is left to estimate.

    Args:
        correct, n: of the sample; n > 0; of weighted items, their weighted share times `kish`, and `kish`.
        confidence: in (0, 1).
        size: N, of the population, >= n; None for one without end.
        method: `wilson` or `agresti_coull`, by statsmodels.
    """
    share = correct / n
    if size is not None and n >= size:
        return Estimate(share, share, share)
    counted = n * (size - 1) / (size - n) if size is not None and 2 * n > size else n
    low, high = proportion_confint(share * counted, counted, alpha=1 - confidence, method=method)
    return Estimate(share, float(low), float(high))
