"""The judge judged: its verdicts against the reference labels of the same skills, and the accuracy with its errors corrected."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import cohen_kappa_score

from hardsoft.core.labels import ABILITIES
from hardsoft.statistics.intervals import Estimate, as_figures, kish, wilson
from hardsoft.statistics.ppi import Judged, corrected
from hardsoft.statistics.stratified import mover

ENOUGH = 200
"""Skills that both have labelled, below which the figures are rough."""
NOTHING = "no judged skill has a reference label"
FIGURES = ("kappa", "sensitivity", "specificity")


def kappa(truth: list[str], given: list[str], confidence: float) -> Estimate | None:
    """Cohen's kappa of two labellings, in [-1, 1]; None where both use one and the same label throughout.

    With the agreement by chance taken as known, as in Cohen's own standard error (1960, Educational and Psychological Measurement
    20:37), kappa is a line in the observed agreement, whose Wilson interval is mapped by it: perfect agreement has a width too.
    """
    if len({*truth, *given}) < 2:
        return None
    value = float(cohen_kappa_score(truth, given))
    observed = sum(a == b for a, b in zip(truth, given, strict=True))
    counts, others = Counter(truth), Counter(given)
    chance = sum(counts[label] * others[label] for label in counts) / len(truth) ** 2
    share = wilson(observed, len(truth), confidence)
    low, high = ((end - chance) / (1 - chance) for end in (share.low, share.high))
    return Estimate(value, low, high)


def judge_section(
    judged: pl.DataFrame, judges: set[str], truths: pl.DataFrame, sizes: Mapping[str, int], confidence: float
) -> tuple[dict[str, Any], Estimate | str]:
    """The judge against the reference labels of the sampled skills, and the accuracy with its errors corrected.

    Args:
        judged: columns skill, label, verdict (or null), weight; of the sampled skills.
        judges: the names of those that gave verdicts.
        truths: columns skill, truth; of the skills with a reference label.
        sizes: of all skills, how many have each label.

    Returns:
        As `judge_figures` and `corrected_accuracy` do.
    """
    if judges <= {"reference"}:
        reason = "the judge is the reference"
        return no_judge_figures(reason), reason
    rows = judged.join(truths, on="skill", how="left").drop_nulls("verdict")
    return judge_figures(rows.drop_nulls("truth"), confidence), corrected_accuracy(rows, sizes, confidence)


def judge_figures(judged: pl.DataFrame, confidence: float) -> dict[str, Any]:
    """How well the judge knows a right label from a wrong one.

    Sensitivity: of the skills whose given label the reference calls right, the share where the judge's verdict equals it too.
    Specificity: of those whose given label the reference calls wrong, the share where the verdict differs from it. Both are
    weighted as the sample is. Kappa: the judge's verdicts against the reference labels, over the three labels, unweighted.

    Args:
        judged: columns label, verdict, truth, weight; of the sampled skills that have all of them.

    Returns:
        n, and each figure as value, low, high; or null with the reason.
    """
    result: dict[str, Any] = {"n": judged.height}
    agreed = kappa(judged["truth"].to_list(), judged["verdict"].to_list(), confidence) if judged.height else None
    missing = "the judge and the reference use one and the same label" if judged.height else NOTHING
    result["kappa"] = as_figures(agreed or missing, "value")
    right = judged.filter(pl.col("truth") == pl.col("label"))
    wrong = judged.filter(pl.col("truth") != pl.col("label"))
    result["sensitivity"] = _share(right, pl.col("verdict") == pl.col("label"), confidence, "right")
    result["specificity"] = _share(wrong, pl.col("verdict") != pl.col("label"), confidence, "wrong")
    if 0 < judged.height < ENOUGH:
        both = f"{judged.height} skills have both a verdict and a reference label"
        result["warning"] = f"{both}; below {ENOUGH} these figures are rough"
    return result


def no_judge_figures(reason: str) -> dict[str, Any]:
    """What `judge_figures` gives where there is nothing to compare."""
    return {"n": 0, **{name: as_figures(reason, "value") for name in FIGURES}}


def corrected_accuracy(judged: pl.DataFrame, sizes: Mapping[str, int], confidence: float) -> Estimate | str:
    """The accuracy of the Hard and Soft labels given, the judge's errors corrected by label; or why there is none.

    Args:
        judged: columns label, verdict, truth (null where the reference has none), weight; of the sampled skills with a verdict.
        sizes: of all skills, how many have each label.
    """
    total = sum(sizes.get(label, 0) for label in ABILITIES)
    if judged.is_empty() or not total:
        return NOTHING
    if not judged["truth"].null_count():
        return "every judged skill has a reference label; judge=reference estimates from those"
    parts = []
    for label in (label for label in ABILITIES if sizes.get(label, 0)):
        rows = judged.filter(pl.col("label") == label)
        known = rows["truth"].drop_nulls().len()
        if known < 2:
            return f"{label}: {known} judged skills have a reference label; two are the least"
        sample = Judged(
            (rows["verdict"] == label).cast(pl.Float64).to_numpy(),
            (rows["truth"] == label).cast(pl.Float64).fill_null(np.nan).to_numpy(),
            rows["weight"].to_numpy(),
        )
        parts.append((sizes[label] / total, corrected(sample, confidence)))
    return mover(parts)


def _share(rows: pl.DataFrame, found: pl.Expr, confidence: float, kind: str) -> dict[str, Any]:
    if rows.is_empty():
        return as_figures(f"the reference calls no judged skill's label {kind}", "value")
    weights = rows["weight"].to_numpy()
    share = float(np.average(rows.select(found).to_series().to_numpy(), weights=weights))
    return as_figures(wilson(share * kish(weights), kish(weights), confidence), "value")
