"""How far probabilities can be trusted: reliability by bins, calibration error, and accuracy against coverage."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hardsoft.statistics.intervals import kish, wilson

Array = npt.NDArray[np.float64]
BINS = 15
POINTS = 100
RELIABILITY = {"confidence": pl.Float64, "accuracy": pl.Float64, "low": pl.Float64, "high": pl.Float64, "skills": pl.Int64}
RISK_COVERAGE = {"coverage": pl.Float64, "accuracy": pl.Float64, "confidence": pl.Float64}


def confidence_section(
    given: pl.DataFrame, truths: pl.DataFrame, judged: pl.DataFrame, level: float
) -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
    """How far the probabilities can be trusted, against the reference labels, or where there are none, the judge's verdicts.

    Args:
        given: columns skill and probability, of the label given, in [0, 1] or null.
        truths: columns skill, label, truth; of the skills with a reference label.
        judged: columns skill, label, verdict (or null), weight; of the sampled skills.
        level: of the intervals, in (0, 1).

    Returns:
        n and the calibration error, or null with the reason; and what `reliability` and `risk_coverage` return.
    """
    given = given.drop_nulls()
    known = (
        truths.with_columns(weight=pl.lit(1.0)) if truths.height else judged.select("skill", "label", "weight", truth="verdict")
    )
    rows = known.drop_nulls().join(given, on="skill").sort("skill")
    if rows.is_empty():
        why = "no label comes with probabilities" if given.is_empty() else "no skill with probabilities is judged"
        figures = {"n": 0, "calibration_error": None, "reason": why}
        return figures, pl.DataFrame(schema=RELIABILITY), pl.DataFrame(schema=RISK_COVERAGE)
    confidence = rows["probability"].to_numpy()
    right, weights = (rows["label"] == rows["truth"]).cast(pl.Float64).to_numpy(), rows["weight"].to_numpy()
    bins, error = reliability(confidence, right, weights, level)
    return {"n": rows.height, "calibration_error": round(error, 4)}, bins, risk_coverage(confidence, right, weights)


def reliability(confidence: Array, right: Array, weights: Array, level: float) -> tuple[pl.DataFrame, float]:
    """The accuracy in bins of equal mass of confidence, and their weighted mean distance (the expected calibration error).

    Equal-mass bins, as for the adaptive error of Nixon et al. 2019 (arXiv 1904.01685).

    Args:
        confidence: the probability of the label that each item was given, in [0, 1]; at least one.
        right: 1 where that label is right, else 0.
        weights: of the items.
        level: of the bins' Wilson intervals, in (0, 1).

    Returns:
        Columns of RELIABILITY, by rising confidence; and the error, in [0, 1].
    """
    order = np.argsort(confidence, kind="stable")
    rows = []
    error = 0.0
    for part in np.array_split(order, min(BINS, len(order))):
        mean, share = (float(np.average(values[part], weights=weights[part])) for values in (confidence, right))
        n = kish(weights[part])
        estimate = wilson(share * n, n, level)
        error += abs(share - mean) * float(weights[part].sum() / weights.sum())
        rows.append((mean, share, estimate.low, estimate.high, len(part)))
    return pl.DataFrame(rows, schema=RELIABILITY, orient="row"), error


def risk_coverage(confidence: Array, right: Array, weights: Array) -> pl.DataFrame:
    """The accuracy of the most confident items, for growing shares of all: what abstaining below a confidence buys.

    Items of the same confidence are taken together (Geifman & El-Yaniv 2017, arXiv 1705.08500).

    Args:
        confidence, right, weights: see `reliability`.

    Returns:
        Columns of RISK_COVERAGE, by rising coverage, POINTS rows at most; confidence is the lowest one still answered.
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, mass = confidence[order], np.cumsum(weights[order])
    accuracy = np.cumsum((right * weights)[order]) / mass
    last = np.flatnonzero(np.append(sorted_confidence[1:] != sorted_confidence[:-1], True))
    if len(last) > POINTS:
        last = last[np.unique(np.linspace(0, len(last) - 1, POINTS).round().astype(int))]
    columns = {"coverage": mass[last] / mass[-1], "accuracy": accuracy[last], "confidence": sorted_confidence[last]}
    return pl.DataFrame(columns, schema=RISK_COVERAGE)
