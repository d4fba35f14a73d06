"""`python -m hardsoft.compare [REV …]`: is one experiment better than another, on the same skills, and at which ones?

Each experiment's labels are compared with those of the baseline, at the skills whose right label is known for both: by the
reference labels, or by the judge's verdicts where the same skills were drawn whatever their labels (sample=frozen, sample=all).
"""

import argparse
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dvc.api
import numpy as np
import pandas as pd
import polars as pl
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError

from hardsoft.config.load import load_config
from hardsoft.core import paths
from hardsoft.core.errors import InputError
from hardsoft.core.names import key
from hardsoft.core.runner import run
from hardsoft.judging.consensus import VERDICT_COLUMNS, consensus
from hardsoft.judging.reference import read_reference
from hardsoft.statistics import bootstrap
from hardsoft.statistics.paired import NO_DIFFERENCE, difference, holm, p_value, pair, skills_needed, words

FIXED = ("frozen", "all")
"""Samples that do not depend on the labels given."""
SCORES = {"balanced_accuracy": bootstrap.balanced_accuracy, "kappa": bootstrap.kappa, "macro_f1": bootstrap.macro_f1}
Truth = Literal["reference", "judge"]


@dataclass(frozen=True)
class Variant:
    """An experiment's results."""

    name: str
    labels: dict[str, str]
    """By skill."""
    verdicts: dict[str, str]
    """The majority of the judges, by skill."""
    accuracy: dict[str, Any]
    params: dict[str, Any]


def read_variant(rev: str | None) -> Variant:
    """Read a revision's outputs; None is the workspace.

    Raises:
        InputError: no such revision, or its outputs are not in the cache.
    """
    name = rev or "workspace"
    try:
        labels = pd.read_csv(io.StringIO(_text(paths.LABELS, rev)), keep_default_na=False)
        rows = [json.loads(line) for line in _text(paths.VERDICTS, rev).split("\n") if line]
        accuracy, params = json.loads(_text(paths.ACCURACY_METRICS, rev)), dvc.api.params_show(rev=rev)
    except (DvcException, SCMError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name}: {reason}; reproduce it, or fetch it with `dvc exp pull` and `dvc pull`") from None
    agreed = consensus(pl.DataFrame(rows, schema=VERDICT_COLUMNS)).drop_nulls("verdict")
    verdicts = dict(agreed.select("skill", "verdict").iter_rows())
    return Variant(name, dict(zip(labels["skill"], labels["label"], strict=True)), verdicts, accuracy, params)


def truths(new: Variant, old: Variant, reference: dict[str, str], by: Truth) -> dict[str, str]:
    """The right labels of the skills that two variants are compared at."""
    if by == "reference":
        known = {skill: reference[key(skill)] for skill in new.labels if key(skill) in reference}
    else:
        known = {skill: label for skill, label in new.verdicts.items() if old.verdicts.get(skill) == label}
    return {skill: label for skill, label in known.items() if skill in new.labels and skill in old.labels}


def compare(new: Variant, old: Variant, known: dict[str, str], confidence: float) -> dict[str, Any]:
    """The paired comparison of two variants at skills whose label is known.

    Returns:
        n, gained, lost, the difference of accuracies with low and high, p (McNemar, exact), what that says, how many skills would
        show the difference seen, and the differences of balanced accuracy, kappa and macro F1; null where not estimable.
    """
    skills = sorted(known)
    row: dict[str, Any] = {"variant": new.name, "against": old.name, "n": len(skills)}
    if not skills:
        return {**row, "says": "not estimable, no skill with a known label is common to both"}
    truth, given, before = ([labels[skill] for skill in skills] for labels in (known, new.labels, old.labels))
    table = pair(np.array(given) == np.array(truth), np.array(before) == np.array(truth))
    estimate = difference(table, confidence)
    row |= {
        "gained": table.gained,
        "lost": table.lost,
        "difference": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
    }
    row |= {"p": p_value(table), "says": words(estimate, new.name, old.name), "skills_needed": skills_needed(table, confidence)}
    counts = bootstrap.cells(truth, given, before)
    for name, score in SCORES.items():
        found = bootstrap.difference(score, counts, confidence)
        parts = (found.value, found.low, found.high) if found else (None, None, None)
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
    return row


def adjust(rows: Sequence[dict[str, Any]], level: float) -> None:
    """Add Holm's p to comparisons; what does not outlast it is no difference shown."""
    tested = [row for row in rows if row["n"]]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
        if p > level:
            row["says"] = NO_DIFFERENCE


def estimates(variants: Sequence[Variant]) -> pd.DataFrame:
    """The variants' own figures, and the parameters in which they differ."""
    flat = [{name: str(value) for name, value in _flat(variant.params).items()} for variant in variants]
    differing = sorted({name for params in flat for name in params if len({other.get(name) for other in flat}) > 1})
    rows = []
    for variant, params in zip(variants, flat, strict=True):
        population, reference = variant.accuracy["population"], variant.accuracy["reference"]
        rows.append(
            {
                "variant": variant.name,
                **{
                    f"{kind}_{part}": population[kind][part]
                    for kind in ("answered", "all")
                    for part in ("accuracy", "low", "high")
                },
                **{f"reference_{name}": reference[name] for name in ("accuracy", "balanced_accuracy", "kappa")},
                "reference_always_hard": variant.accuracy["always_hard"]["reference_accuracy"],
                **{name: params.get(name) for name in differing},
            }
        )
    return pd.DataFrame(rows)


def flips(new: Variant, old: Variant, known: dict[str, str]) -> pd.DataFrame:
    """The skills with another label than before, and who was right where that is known."""
    rows = []
    for skill in sorted(new.labels.keys() & old.labels.keys()):
        before, now = old.labels[skill], new.labels[skill]
        if before != now:
            right = {before: old.name, now: new.name}.get(known[skill], "neither") if skill in known else None
            rows.append({"variant": new.name, "against": old.name, "skill": skill, "old": before, "new": now, "right": right})
    return pd.DataFrame(rows, columns=["variant", "against", "skill", "old", "new", "right"])


def sentence(row: dict[str, Any], by: Truth) -> str:
    """A comparison in words."""
    what = f"{row['variant']} against {row['against']}"
    if not row["n"]:
        return f"{what}: {row['says']}."
    seen = f"accuracy {row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}), p {row['p']:.2g}"
    seen = f"{seen}, by Holm {row['p_holm']:.2g}"
    text = f"{what}, at {row['n']:,} skills by the {by}: {seen}: {row['says']}."
    if row["says"] == NO_DIFFERENCE and row["skills_needed"]:
        return f"{text} Were it as large as seen, some {row['skills_needed']:,} skills would show it."
    return text


def written(table: pd.DataFrame, form: str) -> str:
    """A table as markdown, csv or json."""
    if form == "csv":
        return table.to_csv(index=False)
    if form == "json":
        return f"{table.to_json(orient='records', indent=2, force_ascii=False)}\n"
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [[*table.columns], ["---"] * len(table.columns), *rows])


def experiments() -> list[str]:
    """The names of the experiments that are based on HEAD, sorted.

    Raises:
        InputError: there is none.
    """
    with Repo.open(".") as repository:
        names = sorted(name for found in repository.experiments.ls(rev="HEAD").values() for name, _ in found)
    if not names:
        raise InputError("no experiment is based on HEAD; run one with `dvc exp run -S …`, or name revisions to compare")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.compare", description="Compare experiments on the same skills.")
    parser.add_argument("revs", nargs="*", metavar="REV", help="experiments or commits; default: all experiments based on HEAD")
    parser.add_argument("--baseline", metavar="REV", help="what they are compared with; default: the workspace")
    parser.add_argument("--pairs", action="store_true", help="compare each with each, not only with the baseline")
    parser.add_argument("--truth", choices=["reference", "judge"], help="default: the judge where samples are frozen or all")
    parser.add_argument("--flips", action="store_true", help="list the skills whose label changed, and who was right")
    parser.add_argument("--format", choices=["markdown", "csv", "json"], default="markdown")
    options = parser.parse_args()
    config = load_config()
    reference = dict(read_reference(config.data.reference).select("key", "label").iter_rows())
    old, *variants = [read_variant(rev) for rev in (options.baseline, *(options.revs or experiments()))]
    pairs = [(variant, old) for variant in variants]
    if options.pairs:
        everyone = [old, *variants]
        pairs = [(new, before) for place, before in enumerate(everyone) for new in everyone[place + 1 :]]
    fixed = all(variant.params["sample"]["kind"] in FIXED for variant in (old, *variants))
    by: Truth = options.truth or ("judge" if fixed and old.verdicts else "reference")
    known = [truths(new, before, reference, by) for new, before in pairs]
    confidence = config.metrics.confidence
    rows = [compare(new, before, truth, confidence) for (new, before), truth in zip(pairs, known, strict=True)]
    adjust(rows, 1 - confidence)

    tables = {"estimates": estimates([old, *variants]), "comparisons": pd.DataFrame(rows)}
    if options.flips:
        tables["flips"] = pd.concat([flips(new, before, truth) for (new, before), truth in zip(pairs, known, strict=True)])
    if options.format == "json":
        print(
            json.dumps({name: json.loads(written(table, "json")) for name, table in tables.items()}, indent=2, ensure_ascii=False)
        )
        return
    print("\n".join(written(table, options.format) for table in tables.values()))
    if options.format == "markdown":
        print("\n".join(sentence(row, by) for row in rows))
        if by == "judge" and not fixed:
            print("The samples were drawn by each variant's labels: their common skills are no random part (sample=frozen is).")


def _text(path: str, rev: str | None) -> str:
    return str(dvc.api.read(path, rev=rev, encoding="utf-8"))


def _flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    run("compare", main)
