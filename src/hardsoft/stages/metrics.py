"""Stage metrics: accuracy of the judged sample, of the population it stands for, and against the reference labels."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import polars as pl

from hardsoft.config.schema import load_config
from hardsoft.core.files import read_jsonl, to_json, write_outputs
from hardsoft.core.labels import ANSWERS, Label
from hardsoft.core.names import name_key
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv
from hardsoft.judging.consensus import VERDICT_COLUMNS, consensus
from hardsoft.judging.reference import read_reference
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.intervals import Estimate, wilson
from hardsoft.statistics.judge import corrected_accuracy, judge_figures, no_judge_figures
from hardsoft.statistics.stratified import Stratum, post_stratified

Figures = dict[str, Any]
NO_REFERENCE = "no labelled skill is in the reference labels"


def figures(estimate: Estimate | str) -> Figures:
    """An estimate as metrics, rounded to 4 decimals; a string is the reason why there is none."""
    if isinstance(estimate, str):
        return {"accuracy": None, "low": None, "high": None, "reason": estimate}
    return rounded(asdict(estimate))


def rounded(values: Figures) -> Figures:
    """The same figures with 4 decimals."""
    result: Figures = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result[key] = rounded(value)
        else:
            result[key] = round(value, 4) if isinstance(value, float) else value
    return result


def sample_figures(judged: pl.DataFrame, sizes: Counter[str], asked: int, confidence: float) -> Figures:
    """The study's figures: of the sampled skills with a verdict, how many have the judge's label.

    hard and soft are the precisions of those labels; overall is their mean at the sample's own mix, no population's. Skills
    without a verdict are counted as missing: low_if_wrong and high_if_right are the interval's ends if all were wrong, or right.
    """
    result = {}
    for name, rows in [(label.lower(), judged.filter(pl.col("label") == label)) for label in ANSWERS] + [("overall", judged)]:
        correct, n = count_correct(rows)
        size = None if name == "overall" else sizes[name.capitalize()]
        missing = rows.height - n
        result[name] = {
            "correct": correct,
            "n": n,
            **figures(wilson(correct, n, confidence, size) if n else no_verdict(rows, name)),
            "missing": missing,
            "low_if_wrong": _end(correct, rows.height, confidence, size, "low"),
            "high_if_right": _end(correct + missing, rows.height, confidence, size, "high"),
        }
    for label in ANSWERS:
        if sizes[label] < asked:
            result[label.lower()]["note"] = f"the sample asks for {asked} skills; all {sizes[label]} with this label were taken"
    return result


def _end(correct: int, n: int, confidence: float, size: int | None, end: str) -> float | None:
    return round(float(getattr(wilson(correct, n, confidence, size), end)), 4) if n else None


def count_correct(rows: pl.DataFrame) -> tuple[int, int]:
    """How many verdicts equal the label, and how many verdicts there are."""
    verdicts = rows.drop_nulls("verdict")
    return verdicts.filter(pl.col("verdict") == pl.col("label")).height, verdicts.height


def no_verdict(rows: pl.DataFrame, name: str) -> str:
    """Why there is nothing to estimate from."""
    if rows.is_empty():
        return "no skill has a label to judge" if name == "overall" else f"no skill is labelled {name.capitalize()}"
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in sorted(Counter(rows["outcome"]).items()))
    return f"the judge gave no verdict ({outcomes})"


def population_figures(judged: pl.DataFrame, sizes: Counter[str], confidence: float) -> tuple[Figures, Figures]:
    """The post-stratified accuracy of all labels given, and of always answering Hard instead.

    `answered` leaves the skills labelled Unknown out; `all` counts them as wrong, so it is `answered` times the share answered.
    """
    answered = [label for label in ANSWERS if sizes[label]]
    strata, always_hard = [], []
    for label in answered:
        rows = judged.filter(pl.col("label") == label)
        correct, n = count_correct(rows)
        if not n:
            reason = f"{label}: {no_verdict(rows, label)}"
            return {"answered": figures(reason), "all": figures(reason)}, figures(reason)
        strata.append(Stratum(correct, n, sizes[label]))
        always_hard.append(Stratum(rows.filter(pl.col("verdict") == Label.HARD).height, n, sizes[label]))
    if not strata:
        reason = "no skill is labelled Hard or Soft"
        return {"answered": figures(reason), "all": figures(reason)}, figures(reason)
    estimate = post_stratified(strata, confidence)
    share = sum(sizes[label] for label in answered) / sizes.total()
    counted_wrong = Estimate(estimate.accuracy * share, estimate.low * share, estimate.high * share)
    return {"answered": figures(estimate), "all": figures(counted_wrong)}, figures(post_stratified(always_hard, confidence))


def reference_figures(labels: pl.DataFrame, reference: pl.DataFrame) -> tuple[Figures, float | None]:
    """Agreement with the reference over all skills that have a reference label, and the accuracy of always Hard there."""
    pairs = labels.with_columns(key=name_key(pl.col("skill"))).join(reference.rename({"label": "truth"}), on="key").sort("skill")
    if pairs.is_empty():
        empty = {
            "n": 0,
            **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_recall", "kappa")),
            "reason": NO_REFERENCE,
        }
        scores = dict.fromkeys(("precision", "recall", "f1"))
        return {**empty, **{label.lower(): {**scores, "reason": NO_REFERENCE} for label in Label}}, None
    truth, given = pairs["truth"].to_list(), pairs["label"].to_list()
    result = rounded(agreement(truth, given, ANSWERS, list(Label)))
    for label in Label:
        if truth.count(label) == 0 or given.count(label) == 0:
            never = [side for side, values in (("in the reference", truth), ("given", given)) if values.count(label) == 0]
            result[label.lower()]["reason"] = f"{label} is never {' nor '.join(never)}"
    missing = [label for label in Label if truth.count(label) == 0]
    if missing:
        result["reason"] = f"the reference has no skill labelled {' or '.join(missing)}"
    return result, truth.count(Label.HARD) / len(truth)


def judge_section(
    judged: pl.DataFrame, verdicts: pl.DataFrame, reference: pl.DataFrame, sizes: Counter[str], confidence: float
) -> tuple[Figures, Estimate | str]:
    """The judge against the reference labels of the sampled skills, and the accuracy with its errors corrected."""
    if set(verdicts["judge"]) == {"reference"}:
        reason = "the judge is the reference"
        return no_judge_figures(reason), reason
    truths = reference.select("key", truth="label")
    rows = judged.with_columns(key=name_key(pl.col("skill"))).join(truths, on="key", how="left").drop_nulls("verdict")
    return judge_figures(rows.drop_nulls("truth"), confidence), corrected_accuracy(rows, sizes, confidence)


def main() -> None:
    config = load_config()
    confidence = config.metrics.confidence
    labels = read_csv("data/processed/labels.csv")
    sample = read_csv("data/processed/sample.csv").with_columns(pl.col("weight").cast(pl.Float64))
    verdicts = pl.DataFrame(read_jsonl("data/processed/verdicts.jsonl"), schema=VERDICT_COLUMNS)
    judged = sample.join(consensus(verdicts), on="skill", how="left", validate="1:1").sort("label", "skill")
    reference_labels = read_reference(config.data.reference)
    sizes = Counter(labels["label"])

    population, always_hard = population_figures(judged, sizes, confidence)
    judge, corrected = judge_section(judged, verdicts, reference_labels, sizes, confidence)
    reference, always_hard_reference = reference_figures(labels, reference_labels)
    accuracy = {
        "sample": sample_figures(judged, sizes, config.sample.per_label, confidence),
        "population": {**population, "corrected": figures(corrected)},
        "judge": judge,
        "reference": reference,
        "always_hard": {
            "reference_accuracy": None if always_hard_reference is None else round(always_hard_reference, 4),
            "population_accuracy": always_hard["accuracy"],
        },
    }
    reasons = [
        reason for reason in (always_hard.get("reason"), NO_REFERENCE if always_hard_reference is None else None) if reason
    ]
    if reasons:
        accuracy["always_hard"]["reason"] = "; ".join(reasons)
    confusion = judged.drop_nulls("verdict").select(predicted="label", judged="verdict")
    write_outputs({"metrics/accuracy.json": to_json(accuracy), "metrics/confusion.csv": confusion.write_csv()})


if __name__ == "__main__":
    run("metrics", main)
