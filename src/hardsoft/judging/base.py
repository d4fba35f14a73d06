"""Who checks the sampled labels. A judge sees a skill and the codebook, never the label given to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

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


@dataclass(frozen=True)
class Verdict:
    """A judge's label for one skill; none if the outcome is not `answered`."""

    verdict: Label | None
    outcome: JudgeOutcome
    rationale: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    """Tokens by kind, as the provider counts them."""


OnVerdict = Callable[[int, Verdict], None]
"""Called with a skill's position as soon as its verdict is there."""


class Judge(Protocol):
    name: str

    def judge(self, skills: Sequence[str], on_verdict: OnVerdict) -> None:
        """Judge every skill by its name alone."""
