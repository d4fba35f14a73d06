"""Contextual calibration of label probabilities."""

from collections.abc import Sequence

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Inputs that say nothing: the labels' probabilities for them are the prompt's and the model's own leaning."""


def contextual_calibration(probabilities: Sequence[float], content_free: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Divide probabilities by their mean for content-free inputs, and normalise (Zhao et al. 2021, arXiv 2102.09690).

    Args:
        probabilities: of the labels, each in (0, 1).
        content_free: the same for each content-free input.

    Returns:
        As many probabilities, summing to 1.
    """
    leaning = [sum(column) / len(content_free) for column in zip(*content_free, strict=True)]
    scaled = [value / lean for value, lean in zip(probabilities, leaning, strict=True)]
    return tuple(value / sum(scaled) for value in scaled)
