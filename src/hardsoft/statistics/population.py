"""What a judged sample says: the precision of each label, and the accuracy of all labels given."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from hardsoft.core.labels import ABILITIES, Label
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.intervals import Estimate, as_figures, kish, rounded, wilson
from hardsoft.statistics.paired import difference, pair, words
from hardsoft.statistics.stratified import Stratum, mover, post_stratified

Figures = dict[str, Any]


def sample_figures(judged: pl.DataFrame, sizes: Mapping[str, int], confidence: float) -> Figures:
    """The study's figures: of the sampled skills with a verdict, how many have the judge's label.

    hard and soft are the precisions of those labels, weighted as they were drawn; overall is their mean at the sample's own
    mix, no population's. Skills without a verdict are counted as missing: low_if_wrong and high_if_right are the interval's ends
    if all of them were wrong, or right.

    Args:
        judged: columns label, verdict (or null), outcome, weight; of the sampled skills.
        sizes: of all skills, how many have each label.
        confidence: in (0, 1).
    """
    answered = judged.filter(pl.col("label").is_in(ABILITIES))
    parts = [(label.lower(), answered.filter(pl.col("label") == label), sizes.get(label, 0)) for label in ABILITIES]
    result = {name: _precision(rows, name, size, confidence) for name, rows, size in parts}
    return {**result, "overall": _precision(answered.with_columns(weight=pl.lit(1.0)), "overall", None, confidence)}


def population_figures(judged: pl.DataFrame, sizes: Mapping[str, int], confidence: float) -> tuple[Figures, Figures]:
    """The post-stratified accuracy of all labels given, and of always answering Hard instead.

    `answered` leaves the skills labelled Unknown out; `all` counts them as wrong, so it is `answered` times the share answered.

    Args:
        judged, sizes, confidence: see `sample_figures`.
    """
    answered = [label for label in ABILITIES if sizes.get(label, 0)]
    right, hard = [], []
    for label in answered:
        rows = judged.filter(pl.col("label") == label)
        known = rows.drop_nulls("verdict")
        if known.is_empty():
            reason = f"{label}: {no_verdict(rows, label)}"
            return {"answered": as_figures(reason), "all": as_figures(reason)}, as_figures(reason)
        right.append(_stratum(known, pl.col("verdict") == label, sizes[label]))
        hard.append(_stratum(known, pl.col("verdict") == Label.HARD, sizes[label]))
    if not answered:
        reason = "no skill is labelled Hard or Soft"
        return {"answered": as_figures(reason), "all": as_figures(reason)}, as_figures(reason)
    estimate = post_stratified(right, confidence)
    share = sum(sizes[label] for label in answered) / sum(sizes.values())
    counted_wrong = Estimate(estimate.value * share, estimate.low * share, estimate.high * share)
    return {"answered": as_figures(estimate), "all": as_figures(counted_wrong)}, as_figures(post_stratified(hard, confidence))


def against_always_hard(judged: pl.DataFrame, sizes: Mapping[str, int], confidence: float) -> Figures:
    """The population's accuracy minus that of always answering Hard.

    They differ at the skills labelled Soft only, so it is the paired difference there, times their share.
    """
    soft = judged.filter(pl.col("label") == Label.SOFT).drop_nulls("verdict")
    answered = sum(sizes.get(label, 0) for label in ABILITIES)
    if soft.is_empty():
        reason = "no skill labelled Soft has a verdict" if sizes.get(Label.SOFT, 0) else "no skill is labelled Soft"
        return as_figures(reason, "value")
    right, hard = (soft["verdict"] == label for label in (Label.SOFT, Label.HARD))
    part = difference(pair(right.to_numpy(), hard.to_numpy()), confidence)
    share = sizes[Label.SOFT] / answered
    whole = Estimate(share * part.value, share * part.low, share * part.high)
    return {**as_figures(whole, "value"), "says": words(part, "labelling", "always Hard")}


def mention_accuracy(judged: pl.DataFrame, mentions: int, confidence: float) -> Estimate | str:
    """The accuracy of the Hard and Soft labels given, each skill counted as often as it is mentioned.

    For a sample drawn in proportion to mentions: the skills that were drawn for sure count by their mentions, and the others, of
    which each then stands for as many mentions, by their mean.

    Args:
        judged: columns label, verdict (or null), outcome, weight, mentions; of the sampled skills.
        mentions: of all skills labelled Hard or Soft.
    """
    known = judged.filter(pl.col("label").is_in(ABILITIES)).drop_nulls("verdict")
    if known.is_empty():
        return no_verdict(judged, "overall")
    right = pl.col("verdict") == pl.col("label")
    sure, drawn = known.filter(pl.col("weight") <= 1), known.filter(pl.col("weight") > 1)
    everything_sure = judged.filter((pl.col("weight") <= 1) & pl.col("label").is_in(ABILITIES))
    of_sure = int(everything_sure["mentions"].sum())
    parts = []
    if of_sure and not sure.is_empty():
        share = float(np.average(sure.select(right).to_series(), weights=sure["mentions"]))
        n = float(sure.height)
        parts.append((of_sure / mentions, wilson(share * n, n, confidence, everything_sure.height)))
    if not drawn.is_empty():
        parts.append((1 - of_sure / mentions, wilson(drawn.filter(right).height, drawn.height, confidence)))
    total = sum(weight for weight, _ in parts)
    return mover([(weight / total, part) for weight, part in parts])


def mention_figures(judged: pl.DataFrame, labels: pl.DataFrame, by_mention: bool, confidence: float) -> Figures:
    """The accuracy by mention, where the sample was drawn for it; see `mention_accuracy`.

    Args:
        labels: columns label, mentions; of all skills.
        by_mention: whether the sample was drawn in proportion to mentions, or holds all skills.
    """
    if not by_mention:
        return as_figures("the sample was not drawn by mention; sample=by_mention is")
    mentions = int(labels.filter(pl.col("label").is_in(ABILITIES))["mentions"].sum())
    return as_figures(mention_accuracy(judged, mentions, confidence))


def agreement_figures(judged: pl.DataFrame) -> Figures:
    """Agreement of the labels given with the verdicts, weighted from the sample to the skills it stands for.

    Args:
        judged: columns label, verdict (or null), outcome, weight; of the sampled skills.
    """
    known = judged.drop_nulls("verdict")
    if known.is_empty():
        return no_agreement(no_verdict(judged, "overall"))
    verdicts, given, weights = known["verdict"].to_list(), known["label"].to_list(), known["weight"].to_numpy()
    result = rounded(agreement(verdicts, given, ABILITIES, list(Label), weights))
    if not (judged["label"] == Label.UNKNOWN).any():
        result["note"] = "of the skills labelled Hard or Soft: those labelled Unknown were not sampled"
    return result


def no_agreement(reason: str) -> Figures:
    """What `agreement` gives where there is nothing to compare."""
    empty = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_recall", "kappa"))
    scores = dict.fromkeys(("precision", "recall", "f1"))
    return {"n": 0, **empty, "reason": reason, **{label.lower(): {**scores, "reason": reason} for label in Label}}


def no_verdict(rows: pl.DataFrame, name: str) -> str:
    """Why there is nothing to estimate from."""
    if rows.is_empty():
        return "no skill was sampled" if name == "overall" else f"no skill labelled {name.capitalize()} was sampled"
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in sorted(Counter(rows["outcome"]).items()))
    return f"the judge gave no verdict ({outcomes})"


def _precision(rows: pl.DataFrame, name: str, size: int | None, confidence: float) -> Figures:
    known = rows.drop_nulls("verdict")
    correct = known.filter(pl.col("verdict") == pl.col("label")).height
    missing = rows.height - known.height
    if known.is_empty():
        reason = f"no skill is labelled {name.capitalize()}" if size == 0 else no_verdict(rows, name)
        estimate: Estimate | str = reason
    else:
        stratum = _stratum(known, pl.col("verdict") == pl.col("label"), size or 0)
        estimate = wilson(stratum.correct, stratum.n, confidence, size)
    return {
        "correct": correct,
        "n": known.height,
        **as_figures(estimate),
        "missing": missing,
        "low_if_wrong": _if_missing(rows, confidence, size, right=False),
        "high_if_right": _if_missing(rows, confidence, size, right=True),
    }


def _if_missing(rows: pl.DataFrame, confidence: float, size: int | None, right: bool) -> float | None:
    if rows.is_empty():
        return None
    stratum = _stratum(rows, (pl.col("verdict") == pl.col("label")).fill_null(right), size or 0)
    estimate = wilson(stratum.correct, stratum.n, confidence, size)
    return round(estimate.high if right else estimate.low, 4)


def _stratum(rows: pl.DataFrame, hit: pl.Expr, size: int) -> Stratum:
    """A label's rows as so many of equal weight, of which so many are hits."""
    weights = rows["weight"].to_numpy()
    n = min(kish(weights), size) if size else kish(weights)
    share = float(np.average(rows.select(hit.cast(pl.Float64)).to_series().to_numpy(), weights=weights))
    return Stratum(share * n, n, size)
