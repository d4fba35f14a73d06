"""One proportion with its interval."""

from dataclasses import dataclass

from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Estimate:
    """A proportion in [0, 1] with its interval."""

    accuracy: float
    low: float
    high: float


def wilson(correct: int, n: int, confidence: float) -> Estimate:
    """A binomial proportion with its Wilson score interval (Wilson 1927, JASA 22:209). n must be >= 1."""
    low, high = proportion_confint(correct, n, alpha=1 - confidence, method="wilson")
    return Estimate(correct / n, float(low), float(high))
