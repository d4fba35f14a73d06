"""Stage metrics: accuracy of the judged sample, of the population it stands for, and against the reference labels."""

from collections import Counter
from typing import Any

import polars as pl

from hardsoft.config.load import load_config
from hardsoft.config.machine import readout_of
from hardsoft.config.samples import AllSampleConfig, ByMentionSampleConfig, PerLabelSampleConfig, SampleConfig
from hardsoft.core import paths
from hardsoft.core.files import to_json, write_outputs
from hardsoft.core.labels import ABILITIES
from hardsoft.core.names import clean_key
from hardsoft.core.readouts import read_readout
from hardsoft.core.runner import run
from hardsoft.judging.consensus import consensus
from hardsoft.judging.reference import read_reference
from hardsoft.stages import tables
from hardsoft.statistics import plots, population
from hardsoft.statistics.against_reference import always_hard_figures, reference_figures
from hardsoft.statistics.calibration import confidence_section
from hardsoft.statistics.intervals import as_figures
from hardsoft.statistics.judge_quality import judge_section


def note_small_labels(sample: dict[str, Any], sizes: Counter[str], option: SampleConfig) -> None:
    """Say where a label had fewer skills than the sample asks for."""
    if isinstance(option, PerLabelSampleConfig) and option.allocation == "equal":
        for label in ABILITIES:
            if sizes[label] < option.per_label:
                asked = f"the sample asks for {option.per_label} skills"
                sample[label.lower()]["note"] = f"{asked}; all {sizes[label]} with this label were taken"


def main() -> None:
    config = load_config()
    level = config.metrics.confidence
    labels, verdicts = tables.labels(), tables.verdicts()
    given = tables.probability_given(labels, tables.probabilities())
    reference = read_reference(config.data.reference).select("key", truth="label")
    judged = tables.sample().join(consensus(verdicts), on="skill", how="left", validate="1:1").sort("label", "skill")
    judged = judged.join(labels.select("skill", "mentions"), on="skill", how="left", maintain_order="left")
    truths = labels.with_columns(key=clean_key(pl.col("skill"))).join(reference, on="key")
    truths = truths.select("skill", "label", "truth").sort("skill")
    sizes, outcomes = Counter(labels["label"].to_list()), Counter(labels["outcome"].to_list())

    sample = population.sample_figures(judged, sizes, level)
    note_small_labels(sample, sizes, config.sample)
    of_population, always_hard = population.population_figures(judged, sizes, level)
    judge, corrected = judge_section(judged, set(verdicts["judge"]), truths.select("skill", "truth"), sizes, level)
    by_mention = isinstance(config.sample, ByMentionSampleConfig | AllSampleConfig)
    mentions = population.mention_figures(judged, labels, by_mention, level)
    against_reference, hard_at_reference = reference_figures(truths)
    readout = readout_of(config)
    if readout and not truths.is_empty() and (overlap := read_readout(readout).overlap):
        against_reference["note"] = f"{overlap} names of the reference are among those that {readout} was fitted on"
    difference = population.against_always_hard(judged, sizes, level)
    trust, bins, curve = confidence_section(given.select("skill", "probability"), truths, judged, level)
    accuracy = {
        "sample": sample,
        "population": {**of_population, "corrected": as_figures(corrected), "by_mention": mentions},
        "judged": population.agreement_figures(judged),
        "judge": judge,
        "reference": against_reference,
        "always_hard": always_hard_figures(hard_at_reference, always_hard, difference),
        "confidence": trust,
        "outcomes": dict(sorted(outcomes.items())),
    }
    write_outputs(
        {
            paths.ACCURACY_METRICS: to_json(accuracy),
            paths.CONFUSION_PLOT: plots.confusion(judged).write_csv(),
            paths.COUNTS_PLOT: plots.counts(sizes, outcomes).write_csv(),
            paths.PRECISION_PLOT: plots.precision(sample).write_csv(),
            paths.RELIABILITY_PLOT: bins.with_columns(pl.col(pl.Float64).round(4)).write_csv(),
            paths.RISK_COVERAGE_PLOT: curve.with_columns(pl.col(pl.Float64).round(4)).write_csv(),
        }
    )


if __name__ == "__main__":
    run("metrics", main)
