"""Stage metrics: accuracy of the judged sample, of the population it stands for, and against the reference labels."""

from collections import Counter
from typing import Any

import polars as pl

from hardsoft.config.schema import (
    AllSampleConfig,
    ByMentionSampleConfig,
    PerLabelSampleConfig,
    SampleConfig,
    load_config,
    readout_of,
)
from hardsoft.core import paths
from hardsoft.core.files import to_json, write_outputs
from hardsoft.core.labels import ABILITIES, Label
from hardsoft.core.names import clean_key
from hardsoft.core.readouts import read_readout
from hardsoft.core.runner import run
from hardsoft.judging.consensus import consensus
from hardsoft.judging.reference import read_reference
from hardsoft.stages import tables
from hardsoft.statistics import population
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.calibration import RELIABILITY, RISK_COVERAGE, reliability, risk_coverage
from hardsoft.statistics.intervals import Estimate, as_figures
from hardsoft.statistics.judge_quality import corrected_accuracy, judge_figures, no_judge_figures

Figures = dict[str, Any]
NO_REFERENCE = "no labelled skill is in the reference labels"


def rounded(values: Figures) -> Figures:
    """The same figures with 4 decimals."""
    return {
        key: rounded(value) if isinstance(value, dict) else round(value, 4) if isinstance(value, float) else value
        for key, value in values.items()
    }


def note_small_labels(sample: Figures, sizes: Counter[str], option: SampleConfig) -> None:
    """Say where a label had fewer skills than the sample asks for."""
    if isinstance(option, PerLabelSampleConfig) and option.allocation == "equal":
        for label in ABILITIES:
            if sizes[label] < option.per_label:
                asked = f"the sample asks for {option.per_label} skills"
                sample[label.lower()]["note"] = f"{asked}; all {sizes[label]} with this label were taken"


def mention_figures(judged: pl.DataFrame, labels: pl.DataFrame, option: SampleConfig, confidence: float) -> Figures:
    """The accuracy by mention, where the sample was drawn for it."""
    if not isinstance(option, ByMentionSampleConfig | AllSampleConfig):
        return as_figures("the sample was not drawn by mention; sample=by_mention is")
    mentions = int(labels.filter(pl.col("label").is_in(ABILITIES))["mentions"].sum())
    return as_figures(population.mention_accuracy(judged, mentions, confidence))


def judge_section(
    judged: pl.DataFrame, judges: set[str], truths: pl.DataFrame, sizes: Counter[str], confidence: float
) -> tuple[Figures, Estimate | str]:
    """The judge against the reference labels of the sampled skills, and the accuracy with its errors corrected."""
    if judges <= {"reference"}:
        reason = "the judge is the reference"
        return no_judge_figures(reason), reason
    rows = judged.join(truths, on="skill", how="left").drop_nulls("verdict")
    return judge_figures(rows.drop_nulls("truth"), confidence), corrected_accuracy(rows, sizes, confidence)


def reference_figures(truths: pl.DataFrame, readout: str | None) -> tuple[Figures, float | None]:
    """Agreement with the reference over all skills that have a reference label, and the accuracy of always Hard there.

    Args:
        truths: columns label, truth.
        readout: path of the read-out that labelled, if one did.
    """
    if truths.is_empty():
        return population.no_agreement(NO_REFERENCE), None
    truth, given = truths["truth"].to_list(), truths["label"].to_list()
    result = rounded(agreement(truth, given, ABILITIES, list(Label)))
    for label in Label:
        never = [side for side, values in (("in the reference", truth), ("given", given)) if label not in values]
        if never:
            result[label.lower()]["reason"] = f"{label} is never {' nor '.join(never)}"
    missing = [label for label in Label if label not in truth]
    if missing:
        result["reason"] = f"the reference has no skill labelled {' or '.join(missing)}"
    if readout and (overlap := read_readout(readout).overlap):
        result["note"] = f"{overlap} names of the reference are among those that {readout} was fitted on"
    return result, truth.count(Label.HARD) / len(truth)


def confidence_section(
    given: pl.DataFrame, truths: pl.DataFrame, judged: pl.DataFrame, level: float
) -> tuple[Figures, pl.DataFrame, pl.DataFrame]:
    """How far the probabilities can be trusted, against the reference labels, or where there are none, the judge's verdicts.

    Args:
        given: columns skill and probability, of the label given, or null.
    """
    given = given.drop_nulls()
    known = (
        truths.with_columns(weight=pl.lit(1.0)) if truths.height else judged.select("skill", "label", "weight", truth="verdict")
    )
    rows = known.drop_nulls().join(given, on="skill").sort("skill")
    if rows.is_empty():
        why = "no label comes with probabilities" if given.is_empty() else "no skill with probabilities is judged"
        return (
            {"n": 0, "calibration_error": None, "reason": why},
            pl.DataFrame(schema=RELIABILITY),
            pl.DataFrame(schema=RISK_COVERAGE),
        )
    confidence = rows["probability"].to_numpy()
    right, weights = (rows["label"] == rows["truth"]).cast(pl.Float64).to_numpy(), rows["weight"].to_numpy()
    bins, error = reliability(confidence, right, weights, level)
    return {"n": rows.height, "calibration_error": round(error, 4)}, bins, risk_coverage(confidence, right, weights)


def confusion(judged: pl.DataFrame) -> pl.DataFrame:
    """How many sampled skills have each label and each verdict, and which share of the label's."""
    every = pl.DataFrame([(given, verdict) for given in Label for verdict in Label], schema=["label", "verdict"], orient="row")
    counts = judged.drop_nulls("verdict").group_by("label", "verdict").len("skills")
    filled = every.join(counts, on=["label", "verdict"], how="left", maintain_order="left").with_columns(
        pl.col("skills").fill_null(0)
    )
    share = pl.col("skills") / pl.col("skills").sum().over("label")
    return filled.select(predicted="label", judged="verdict", skills="skills", share=share.fill_nan(0.0).round(4))


def main() -> None:
    config = load_config()
    level = config.metrics.confidence
    labels, drawn, verdicts = tables.labels(), tables.sample(), tables.verdicts()
    given = tables.probability_given(labels, tables.probabilities()).select("skill", "probability")
    reference = read_reference(config.data.reference).select("key", truth="label")

    judged = drawn.join(consensus(verdicts), on="skill", how="left", validate="1:1").sort("label", "skill")
    judged = judged.join(labels.select("skill", "mentions"), on="skill", how="left", maintain_order="left")
    truths = (
        labels.with_columns(key=clean_key(pl.col("skill")))
        .join(reference, on="key")
        .select("skill", "label", "truth")
        .sort("skill")
    )
    sizes, outcomes = Counter(labels["label"].to_list()), Counter(labels["outcome"].to_list())

    sample = population.sample_figures(judged, sizes, level)
    note_small_labels(sample, sizes, config.sample)
    of_population, always_hard = population.population_figures(judged, sizes, level)
    judge, corrected = judge_section(judged, set(verdicts["judge"]), truths.select("skill", "truth"), sizes, level)
    against_reference, always_hard_reference = reference_figures(truths, readout_of(config))
    trust, bins, curve = confidence_section(given, truths, judged, level)
    accuracy = {
        "sample": sample,
        "population": {
            **of_population,
            "corrected": as_figures(corrected),
            "by_mention": mention_figures(judged, labels, config.sample, level),
        },
        "judged": rounded(population.agreement_figures(judged)),
        "judge": judge,
        "reference": against_reference,
        "always_hard": {
            "reference_accuracy": None if always_hard_reference is None else round(always_hard_reference, 4),
            "population_accuracy": always_hard["accuracy"],
            "difference": population.against_always_hard(judged, sizes, level),
        },
        "confidence": trust,
        "outcomes": dict(sorted(outcomes.items())),
    }
    reasons = [always_hard.get("reason"), NO_REFERENCE if always_hard_reference is None else None]
    if any(reasons):
        accuracy["always_hard"]["reason"] = "; ".join(filter(None, reasons))
    precision = [(label, sample[label.lower()]) for label in ABILITIES]
    columns = ("accuracy", "low", "high", "n")
    counts = [
        (kind, name, count)
        for kind, counted in (("label", sizes), ("outcome", outcomes))
        for name, count in sorted(counted.items())
    ]
    write_outputs(
        {
            paths.ACCURACY_METRICS: to_json(accuracy),
            paths.CONFUSION_PLOT: confusion(judged).write_csv(),
            paths.COUNTS_PLOT: pl.DataFrame(counts, schema=["kind", "name", "skills"], orient="row").write_csv(),
            paths.PRECISION_PLOT: pl.DataFrame(
                [(label, *(row[column] for column in columns)) for label, row in precision if row["accuracy"] is not None],
                schema={"label": pl.String, "precision": pl.Float64, "low": pl.Float64, "high": pl.Float64, "skills": pl.Int64},
                orient="row",
            ).write_csv(),
            paths.RELIABILITY_PLOT: bins.with_columns(pl.col(pl.Float64).round(4)).write_csv(),
            paths.RISK_COVERAGE_PLOT: curve.with_columns(pl.col(pl.Float64).round(4)).write_csv(),
        }
    )


if __name__ == "__main__":
    run("metrics", main)
