"""The labels given, and always answering Hard, against the reference labels of the same skills."""

from typing import Any

import polars as pl

from hardsoft.core.labels import ABILITIES, Label
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.intervals import rounded
from hardsoft.statistics.population import no_agreement

Figures = dict[str, Any]
NO_REFERENCE = "no labelled skill is in the reference labels"


def reference_figures(truths: pl.DataFrame) -> tuple[Figures, float | None]:
    """Agreement with the reference over all skills that have a reference label, and the accuracy of always Hard there.

    Args:
        truths: columns label, truth.

    Returns:
        Figures with 4 decimals; what is null has a reason. The accuracy in [0, 1], or None where no skill has a reference label.
    """
    if truths.is_empty():
        return no_agreement(NO_REFERENCE), None
    truth, given = truths["truth"].to_list(), truths["label"].to_list()
    result = rounded(agreement(truth, given, ABILITIES, list(Label)))
    for label in Label:
        never = [side for side, values in (("in the reference", truth), ("given", given)) if label not in values]
        if never:
            result[label.lower()]["reason"] = f"{label} is never {' nor '.join(never)}"
    missing = [label for label in Label if label not in truth]
    if missing:
        result["reason"] = f"the reference has no skill labelled {' or '.join(missing)}"
    return result, truth.count(Label.HARD) / len(truth)


def always_hard_figures(at_reference: float | None, in_population: Figures, difference: Figures) -> Figures:
    """The accuracies of always answering Hard; what is null has a reason.

    Args:
        at_reference: as `reference_figures` returns it.
        in_population, difference: as `population_figures` and `against_always_hard` return them.
    """
    result = {
        "reference_accuracy": None if at_reference is None else round(at_reference, 4),
        "population_accuracy": in_population["accuracy"],
        "difference": difference,
    }
    reasons = [in_population.get("reason"), NO_REFERENCE if at_reference is None else None]
    return {**result, "reason": "; ".join(filter(None, reasons))} if any(reasons) else result
