"""Stage report: one page, without network, that shows people the figures and the skills behind them."""

import hashlib
import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert
from jinja2 import Environment, FileSystemLoader

from hardsoft.config.engines import ModelEngineConfig
from hardsoft.config.judges import language_judges
from hardsoft.config.load import load_config
from hardsoft.config.schema import Config
from hardsoft.core import paths
from hardsoft.core.files import file_hash, read_text, write_outputs
from hardsoft.core.labels import ABILITIES, Outcome
from hardsoft.core.names import clean_key
from hardsoft.core.runner import run
from hardsoft.judging.consensus import consensus
from hardsoft.judging.reference import read_reference
from hardsoft.prompting.prompts import read_prompt
from hardsoft.stages import tables
from hardsoft.statistics.sampling import tickets

PLOTS = {
    "precision": paths.PRECISION_PLOT,
    "confusion": paths.CONFUSION_PLOT,
    "counts": paths.COUNTS_PLOT,
    "reliability": paths.RELIABILITY_PLOT,
    "risk_coverage": paths.RISK_COVERAGE_PLOT,
}
"""What the page shows, in this order: templates in .dvc/plots, and their rows."""
SHOWN = 10_000
"""Skills that the page holds at most; beyond that a seeded part of them, so that it opens at once."""
SECTION = 1_000
"""Entries of a section at most."""
LIBRARIES = ("hardsoft", "torch", "transformers", "bitsandbytes")


def percent(figure: dict[str, Any]) -> str:
    """A figure with its interval, in words."""
    return f"{figure['accuracy']:.1%} (interval {figure['low']:.1%} to {figure['high']:.1%})"


def headlines(accuracy: dict[str, Any], confidence: float) -> list[str]:
    """The figures in plain words."""
    lines = []
    for label in ABILITIES:
        figure = accuracy["sample"][label.lower()]
        if figure["accuracy"] is None:
            lines.append(f"How many of the {label} labels are right is not estimable: {figure['reason']}.")
        else:
            lines.append(f"Of the {label} labels, {percent(figure)} are what the judge says, by {figure['n']} judged skills.")
    answered, everything = accuracy["population"]["answered"], accuracy["population"]["all"]
    if answered["accuracy"] is None:
        lines.append(f"The accuracy over all skills is not estimable: {answered['reason']}.")
    else:
        lines.append(
            f"Over all skills labelled Hard or Soft: {percent(answered)}; with Unknown counted as wrong: {percent(everything)}."
        )
        baseline = accuracy["always_hard"]
        if baseline["difference"]["value"] is not None:
            says = baseline["difference"]["says"]
            lines.append(f"Answering Hard every time would score {baseline['population_accuracy']:.1%} there: {says}.")
    corrected = accuracy["population"]["corrected"]
    if corrected["accuracy"] is not None:
        lines.append(f"With the judge's own errors corrected: {percent(corrected)}.")
    reference = accuracy["reference"]
    if reference["accuracy"] is not None:
        always = accuracy["always_hard"]["reference_accuracy"]
        lines.append(
            f"Against {reference['n']:,} reference labels: accuracy {reference['accuracy']:.1%} (always Hard: {always:.1%}), "
            f"balanced accuracy {_number(reference['balanced_accuracy'])}, kappa {_number(reference['kappa'])}."
        )
    trust = accuracy["confidence"]
    if trust["calibration_error"] is not None:
        lines.append(f"Probabilities are off by {trust['calibration_error']:.1%} on average (expected calibration error).")
    return [*lines, f"Intervals are at {confidence:.0%}."]


def plot(name: str) -> str:
    """A plot as SVG, by the template that `dvc plots` uses."""
    specification = json.loads(read_text(f".dvc/plots/{name}.json"))
    rows = pl.read_csv(PLOTS[name]).with_columns(rev=pl.lit(""))
    specification["data"]["values"] = rows.to_dicts()
    specification |= {
        "background": None,
        "config": {"legend": {"disable": name != "confusion"}, "view": {"stroke": None}, "axis": {"gridColor": "#8884"}},
    }
    svg: str = vl_convert.vegalite_to_svg(json.dumps(specification))
    return svg


def provenance(config: Config) -> dict[str, str]:
    """What made the labels, so that it can be made again."""
    whole = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    engine = config.engine
    model = f"{config.model.name} {config.model.revision or ''}" if isinstance(engine, ModelEngineConfig) else engine.model
    return {
        "Model": model.strip(),
        "Quantisation": config.quantization.method,
        "Data type": config.model.dtype,
        "Prompt": config.prompt.template,
        "Judge": ", ".join(language_judges(config.judge)) or "the reference labels",
        "Sample": config.sample.kind,
        **{f"{name} version": version(name) for name in LIBRARIES},
        "Parameters (SHA-256)": hashlib.sha256(whole.encode()).hexdigest(),
        f"{config.data.path} (SHA-256)": file_hash(Path(config.data.path)),
        f"{config.data.reference} (SHA-256)": file_hash(Path(config.data.reference)),
    }


def table(config: Config) -> tuple[pl.DataFrame, dict[str, int]]:
    """The skills that the page holds, with all that is known of them, sorted by name; and how many there are of each kind in all.

    Of more than it holds, it has those at which the judge disagrees first, then the others judged, then the unanswered, and of
    the rest a seeded part.
    """
    labels, verdicts = tables.labels(), tables.verdicts()
    sides = verdicts.sort("skill", "judge", "repeat").group_by("skill", maintain_order=True)
    rationales = sides.agg(pl.col("rationale").filter(pl.col("rationale") != "").str.join("\n\n"))
    judged = consensus(verdicts).select("skill", "verdict").join(rationales, on="skill", how="left")
    rows = labels.join(judged, on="skill", how="left")
    differing, judged_too = pl.col("verdict") != pl.col("label"), pl.col("verdict").is_not_null()
    unanswered = pl.col("outcome") != Outcome.ANSWERED
    kinds = {"differing": differing, "judged": judged_too, "unanswered": unanswered}
    counts = {name: rows.filter(kind).height for name, kind in kinds.items()}
    if rows.height > SHOWN:
        rank = pl.when(differing).then(0).when(judged_too).then(1).when(unanswered).then(2).otherwise(3)
        rows = rows.with_columns(ticket=tickets(labels, seed=0), rank=rank).sort("rank", "ticket").head(SHOWN)
    texts = tables.completion_texts().join(rows.lazy().select("skill"), on="skill", how="semi").collect()
    reference = read_reference(config.data.reference).select("key", reference="label")
    rows = tables.probability_given(rows.join(texts, on="skill", how="left"), tables.probabilities())
    rows = rows.with_columns(key=clean_key(pl.col("skill"))).join(reference, on="key", how="left").sort("skill")
    columns = ("skill", "label", "outcome", "mentions", "probability", "reference", "verdict", "completion", "rationale")
    return rows.select(columns), {"skills": labels.height, **counts}


def embedded(rows: pl.DataFrame) -> str:
    """Rows as JSON that can stand inside a script element, whatever the texts are."""
    text = json.dumps([list(row) for row in rows.iter_rows()], ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028")


def main() -> None:
    config = load_config()
    accuracy = json.loads(read_text(paths.ACCURACY_METRICS))
    counts = json.loads(read_text(paths.LABEL_METRICS))
    rows, in_all = table(config)
    differing = rows.filter(pl.col("verdict") != pl.col("label"))
    unanswered = rows.filter(pl.col("outcome") != Outcome.ANSWERED)
    prompt, source = read_prompt(config.prompt), provenance(config)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("report.html").render(
        skills=in_all["skills"],
        shown=rows.height,
        labels=counts["labels"],
        outcomes=sorted(Counter(rows["outcome"].to_list())),
        setting=f"{source['Model']}, quantisation {config.quantization.method}, {config.prompt.template}",
        headlines=headlines(accuracy, config.metrics.confidence),
        plots=[plot(name) for name in PLOTS],
        judged=in_all["judged"],
        differing=in_all["differing"],
        disagreements=differing.head(SECTION).to_dicts(),
        hidden_unanswered=in_all["unanswered"] - min(unanswered.height, SECTION),
        unanswered=unanswered.head(SECTION).to_dicts(),
        provenance=source,
        prompt=f"{prompt.system}\n\n{prompt.template}\n\n{prompt.prefill}",
        data=embedded(rows),
    )
    write_outputs({paths.REPORT: page})


def _number(value: float | None) -> str:
    return "not estimable" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run("report", main)
