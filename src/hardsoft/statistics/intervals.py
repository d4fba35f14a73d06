"""A value with its interval, as metrics too; and the interval of one proportion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Estimate:
    """A value, such as a proportion or a difference of two, with its interval."""

    value: float
    low: float
    high: float


def as_figures(estimate: Estimate | str, name: str = "accuracy") -> dict[str, Any]:
    """An estimate as metrics, its value under a name, rounded to 4 decimals; a string is the reason why there is none."""
    if isinstance(estimate, str):
        return {name: None, "low": None, "high": None, "reason": estimate}
    return {name: round(estimate.value, 4), "low": round(estimate.low, 4), "high": round(estimate.high, 4)}


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """The same figures with 4 decimals, nested ones too."""
    return {
        key: rounded(value) if isinstance(value, dict) else round(value, 4) if isinstance(value, float) else value
        for key, value in values.items()
    }


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
