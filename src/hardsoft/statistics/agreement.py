"""How well given labels agree with true ones; scikit-learn does the arithmetic."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_recall_fscore_support


def agreement(
    truth: Sequence[str], given: Sequence[str], balanced_over: Sequence[str], labels: Sequence[str]
) -> dict[str, object]:
    """How well given labels agree with true ones.

    Args:
        truth, given: of the same length, >= 1, with values from `labels`.
        balanced_over: the labels whose mean recall is the balanced accuracy; any other answer is wrong there.
        labels: all labels, in the order wanted.

    Returns:
        n, accuracy, balanced_accuracy, macro_recall, kappa (Cohen 1960), and per label (lower case) precision, recall, f1.
        What has a zero denominator is None: precision of a label never given, recall of one that is never true, kappa
        where both sides use one and the same label throughout.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(truth, given, labels=list(labels), zero_division=np.nan)
    by_label = {
        label.lower(): {
            "precision": _number(precision[place]),
            "recall": _number(recall[place]),
            "f1": _number(f1[place]),
        }
        for place, label in enumerate(labels)
    }
    recalls = dict(zip(labels, map(_number, recall), strict=True))
    constant = len({*truth, *given}) == 1
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, given)),
        "balanced_accuracy": _mean([recalls[label] for label in balanced_over]),
        "macro_recall": _mean([recalls[label] for label in labels]),
        "kappa": None if constant else float(cohen_kappa_score(truth, given, labels=list(labels))),
        **by_label,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None if a value is missing."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None
