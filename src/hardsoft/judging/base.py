"""What a verdict on a sampled skill is; knows no judge. A judge sees a skill and the codebook, never the label given to it."""

from dataclasses import dataclass
from enum import StrEnum

from hardsoft.core.labels import Label


class JudgeOutcome(StrEnum):
    """Why a verdict is there or is not."""

    ANSWERED = "answered"
    NOT_IN_REFERENCE = "not_in_reference"
    """The reference labels lack this skill."""
    REFUSED = "refused"
    TRUNCATED = "truncated"
    """The token limit came first."""
    UNPARSEABLE = "unparseable"
    ERROR = "error"
    """The request failed for good."""
    TIED = "tied"
    """Of several judges or repeats, as many gave one verdict as another; an outcome of their consensus only."""


@dataclass(frozen=True)
class Verdict:
    """A judge's label for one skill; none if the outcome is not `answered`."""

    verdict: Label | None
    outcome: JudgeOutcome
    rationale: str = ""
