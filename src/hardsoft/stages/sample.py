"""Stage sample: draw the skills that the judge will check."""

from collections import Counter

import polars as pl

from hardsoft.config.load import load_config
from hardsoft.config.samples import AllSampleConfig, ByMentionSampleConfig, FrozenSampleConfig, PerLabelSampleConfig, SampleConfig
from hardsoft.core import paths
from hardsoft.core.errors import InputError
from hardsoft.core.files import write_outputs
from hardsoft.core.labels import ABILITIES
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv, require_columns
from hardsoft.stages import tables
from hardsoft.statistics import sampling


def draw(labels: pl.DataFrame, option: SampleConfig) -> pl.DataFrame:
    """The sample that an option asks for.

    Args:
        labels: columns skill, label, mentions.

    Returns:
        Columns skill, label, weight (1 / inclusion probability, >= 1), sorted by label and skill.
    """
    match option:
        case PerLabelSampleConfig():
            return sampling.per_label(labels, sizes(labels, option), option.seed)
        case FrozenSampleConfig():
            return sampling.frozen(labels, fractions(labels, option), option.seed)
        case ByMentionSampleConfig():
            return sampling.by_mention(labels, option.n, option.seed)
        case AllSampleConfig():
            return labels.select("skill", "label", weight=pl.lit(1.0)).sort("label", "skill")


def sizes(labels: pl.DataFrame, option: PerLabelSampleConfig) -> dict[str, int]:
    """How many skills of each label to draw."""
    if option.allocation == "equal":
        return dict.fromkeys(ABILITIES, option.per_label)
    expected = {str(label): precision for label, precision in option.expected_precision.items()}
    return sampling.neyman(Counter(labels["label"]), expected, 2 * option.per_label)


def fractions(labels: pl.DataFrame, option: FrozenSampleConfig) -> pl.Series:
    """The fraction that each skill is drawn by: its baseline label's, or the common one."""
    if option.variant is None:
        return pl.Series([option.fraction] * labels.height, dtype=pl.Float64)
    baseline = read_csv(option.variant)
    require_columns(baseline, option.variant, ["skill", "label"], "expected a labels.csv of an earlier run")
    if baseline["skill"].is_duplicated().any():
        raise InputError(f"{option.variant}: a skill is there twice; expected a labels.csv of an earlier run")
    known = labels.select("skill").join(baseline.select("skill", before="label"), on="skill", how="left", maintain_order="left")
    by_label = {str(label): fraction for label, fraction in option.fractions.items()}
    return known["before"].replace_strict(by_label, default=option.fraction, return_dtype=pl.Float64)


def main() -> None:
    option = load_config().sample
    write_outputs({paths.SAMPLE: draw(tables.labels(), option).write_csv()})


if __name__ == "__main__":
    run("sample", main)
