"""The three labels, and why a row has its label; how one is read out of a completion is `prompting.answers`' business."""

from enum import StrEnum


class Label(StrEnum):
    HARD = "Hard"
    SOFT = "Soft"
    UNKNOWN = "Unknown"


ABILITIES = (Label.HARD, Label.SOFT)
"""The labels that say something about an ability; they are what is sampled and judged."""


class Outcome(StrEnum):
    """Why a row has its label."""

    ANSWERED = "answered"
    """The model said Hard or Soft."""
    ABSTAINED = "abstained"
    """The model said Unknown, or declined."""
    TRUNCATED = "truncated"
    """The token limit came before a verdict."""
    UNPARSEABLE = "unparseable"
    """The model finished without a verdict."""
    ERROR = "error"
    """There is no completion: the engine failed on this row."""
