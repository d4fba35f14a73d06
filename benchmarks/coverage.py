"""How often the population's interval holds the truth: exactly, over a grid of sample sizes and precisions.

`python -m benchmarks.coverage` prints, for three mixes of Hard and Soft, the mean and the lowest coverage at 95 % and the mean
width of the intervals that MOVER makes of three kinds of interval for the labels.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from hardsoft.core.files import to_json

Array = npt.NDArray[np.float64]
SHARES = (0.846, 0.5, 0.95)
"""Of Hard among the skills labelled Hard or Soft; the study's first."""
SIZES = (10, 15, 20, 30, 50, 75, 100, 150, 200)
PRECISIONS = np.array([*np.arange(0.05, 0.96, 0.05), 0.97, 0.98, 0.99])
METHODS = {"wilson": "Wilson", "agresti_coull": "Agresti-Coull", "beta": "Clopper-Pearson"}


@dataclass(frozen=True)
class Coverage:
    """Of each sample size and pair of precisions."""

    coverage: Array
    width: Array


def coverage(share: float, sizes: Sequence[int], precisions: Array, method: str, confidence: float = 0.95) -> Coverage:
    """The exact coverage and mean width of MOVER's interval for share * p + (1 - share) * q, by enumerating all samples.

    Args:
        share: of the first label, in (0, 1).
        sizes: skills drawn of each label.
        precisions: values of p and of q.
        method: statsmodels' name of the interval of one label.
    """
    found = [_of_size(share, n, precisions, method, confidence) for n in sizes]
    return Coverage(np.array([one.coverage for one in found]), np.array([one.width for one in found]))


def _of_size(share: float, n: int, precisions: Array, method: str, confidence: float) -> Coverage:
    correct = np.arange(n + 1)
    low, high = proportion_confint(correct, n, alpha=1 - confidence, method=method)
    point = correct / n

    def combined(distance: Array) -> Array:
        return np.sqrt((share * distance)[:, None] ** 2 + ((1 - share) * distance)[None] ** 2)

    middle = share * point[:, None] + (1 - share) * point[None]
    below = np.maximum(0, middle - combined(point - low))
    above = np.minimum(1, middle + combined(high - point))
    chances = np.array([binom.pmf(correct, n, p) for p in precisions])
    truths = share * precisions[:, None] + (1 - share) * precisions[None]
    holds = [[(below <= truth + 1e-12) & (truth <= above + 1e-12) for truth in row] for row in truths]
    covered = np.array(
        [[p @ held @ q for held, q in zip(row, chances, strict=True)] for row, p in zip(holds, chances, strict=True)]
    )
    return Coverage(covered, chances @ (above - below) @ chances.T)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="skills drawn of each label")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    rows = []
    for share in SHARES:
        for method, name in METHODS.items():
            found = coverage(share, options.sizes, PRECISIONS, method)
            figures = {"mean": found.coverage.mean(), "lowest": found.coverage.min(), "width": found.width.mean()}
            rows.append({"share": share, "method": name, **{key: round(float(value), 4) for key, value in figures.items()}})
    print("| share of Hard | labels' interval | mean coverage | lowest | mean width |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    if options.json:
        Path(options.json).write_text(to_json(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
