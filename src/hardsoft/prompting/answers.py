"""How a label is read out of a completion.

A verdict must be stated: `Answer: X`, a final line that is the label alone, or prose that says so ("I would classify it as
X", "leaning towards X"). Text that merely mentions the words Hard and Soft is no verdict, and none is guessed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hardsoft.core.chat import FinishReason
from hardsoft.core.labels import Label, Outcome


@dataclass(frozen=True)
class Reading:
    """A label, why it was given, and the words it was read from (empty if no verdict is stated)."""

    label: Label
    outcome: Outcome
    answer: str


@dataclass(frozen=True)
class Rule:
    """One way in which models say something."""

    name: str
    pattern: re.Pattern[str]
    """What it looks like; for a verdict, with a group `label`."""
    example: str
    """A completion that this rule reads."""


# A label as a whole word, perhaps quoted or emphasised; "hard to say" and "Hard or Soft" are none.
_QUOTE = r"[\"'“”‘’`*_$(\[\s]*"
_END = r"[\"'“”‘’`*_$)\]]*"
_NOT_AN_IDIOM = (
    r"(?!\s+to\s+\w)(?!-\w)"
    r"(?!(?:\s+skills?)?\s*(?:[,(]?\s*(?:or|and|nor|&)\b|[/|,&])\s*" + _QUOTE + r"(?:hard|soft|unknown)\b)"
)
_LABEL = rf"{_QUOTE}(?P<label>hard|soft|unknown)\b{_END}{_NOT_AN_IDIOM}"
# What may stand between the verb and the label.
_ARTICLE = r"(?:(?:a|an|the|being|primarily|mainly|mostly|more|rather|likely|definitely|clearly|purely)\s+)*"


def _rule(name: str, pattern: str, example: str) -> Rule:
    return Rule(name, re.compile(pattern, re.IGNORECASE), example)


ANSWER = _rule(
    "an answer after its name",
    r"\b(?:answer|classification|category|verdict|label)\b(?:\s+(?:for|of)\s+[^:\n]{1,80}?)?"
    rf"(?:\s+(?:is|would\s+be|will\s+be)\b)?(?:[\"'“”*_\s]*[:=>–—-]|(?<=is|be)){_QUOTE}{_ARTICLE}{_LABEL}",
    "Step 2: It is learned.\nAnswer: Hard",
)
LONE_WORD = _rule(
    "a final line that is the label alone",
    rf"(?:^|\n)[ \t]*(?:[-•>#]+[ \t]*)?{_LABEL}(?:[ \t]+skills?)?[.!]?{_END}\s*$",
    "It is learned.\n\n- Hard",
)
PROSE = (
    _rule(
        "what I classify it as",
        r"\bI(?:'d|’d| would| will| can)?(?: \w+ly)? (?:classify|label|categori[sz]e|consider|call|rate|deem)\b"
        r"(?:[^.\n]|\.(?=\w)){0,160}?\bas(?: follows)?:?\s+"
        rf"(?:a\s+skill\s+that\s+(?:leans|is\s+leaning)\s+(?:more\s+)?towards?\s+)?{_ARTICLE}{_LABEL}",
        'I would classify Node.js as a skill that leans towards being "Hard" because',
    ),
    _rule(
        "what I would say it is",
        rf"\bI(?:'d|’d| would) say\s+(?:that\s+)?(?:it(?:'s|’s| is)|this\s+is|[^.\n]{{1,80}}?\s+is)?\s*{_ARTICLE}{_LABEL}",
        "I would say that it is Unknown.",
    ),
    _rule(
        "what it is best classified as",
        rf"\b(?:is|be)\s+(?:best\s+)?(?:classified|labell?ed|categori[sz]ed)\s+as\s+{_ARTICLE}{_LABEL}",
        "It is best classified as a soft skill.",
    ),
    _rule(
        "what it leans towards",
        rf"\blean(?:s|ing)?\s+(?:more\s+)?towards?\s+{_ARTICLE}{_LABEL}",
        "a mix of both, leaning more towards hard skills",
    ),
    _rule(
        "what that makes it",
        rf"\bmak(?:es|ing)\s+(?:it|this)\s+{_ARTICLE}{_LABEL}",
        'these are measurable, making it a "Hard" skill.',
    ),
)
VERDICTS = (ANSWER, LONE_WORD, *PROSE)
DECLINED = (
    _rule(
        "cannot classify",
        r"\b(?:can(?:['’]t|not| not)|unable to|not able to)\b.{0,60}\b(?:classif|provide|determine|categori|know|label)",
        "I can't provide a classification for this skill.",
    ),
    _rule("does not know", r"\bdo(?:n['’]t| not) know\b", "I don't know."),
    _rule(
        "asks back",
        r"\bcould you (?:please )?(?:provide|clarify|specify)|\bplease (?:provide|clarify|specify)",
        "Could you please provide a more specific skill?",
    ),
    _rule("not a skill", r"\bis(?:n['’]t| not)\b[^.\n]{0,30}\bskill\b", '"Protein" is not a skill.'),
)
_HYPOTHETICAL = re.compile(
    r"\b(?:cannot|can['’]t|can|could(?:n['’]t)?|should(?:n['’]t)?|not|either|whether|if|might|may)\b[^.\n]{0,60}$",
    re.IGNORECASE,
)
_ANSWER_LINE = re.compile(rf"^[ \t\"'“”*_#>-]*answer[\"'“”*_ \t]*:{_LABEL}[ \t.]*\n", re.IGNORECASE | re.MULTILINE)
_BEFORE_ANSWER = re.compile(r"\banswer[\"'“”*_\s]*:[\"'“”*_\s]*$", re.IGNORECASE)
# A model that does not stop goes on to the next question: what follows is not about this skill.
_NEXT_QUESTION = re.compile(r"(?<=\S)\s*\n\s*(?:Skill:|Now classify|(?:User|Human|Question):)", re.IGNORECASE)


def read_answer(completion: str, finish_reason: FinishReason) -> Reading:
    """Read the verdict that a completion states.

    The last `Answer: X` wins, then a final lone label, then the last verdict in prose.

    Args:
        completion: the assistant's whole message.
        finish_reason: stop (the model ended it), length (the token limit did) or error (there is none).

    Returns:
        The label with its outcome; Unknown with truncated, unparseable, abstained or error where no verdict is stated.
    """
    if finish_reason == "error":
        return Reading(Label.UNKNOWN, Outcome.ERROR, "")
    text = _own_part(completion)
    stated = _last(ANSWER.pattern.finditer(text)) or LONE_WORD.pattern.search(text) or _last_prose(text)
    if stated:
        label = Label(stated["label"].capitalize())
        outcome = Outcome.ABSTAINED if label is Label.UNKNOWN else Outcome.ANSWERED
        return Reading(label, outcome, " ".join(stated[0].split()))
    if finish_reason == "length":
        return Reading(Label.UNKNOWN, Outcome.TRUNCATED, "")
    declined = any(rule.pattern.search(text) for rule in DECLINED)
    outcome = Outcome.ABSTAINED if declined else Outcome.UNPARSEABLE
    return Reading(Label.UNKNOWN, outcome, "")


def answer_is_complete(text: str) -> bool:
    """Whether a growing completion holds a whole line `Answer: X`, which the next token can no longer change."""
    return _ANSWER_LINE.search(text) is not None


def is_before_answer(text: str) -> bool:
    """Whether the next word of a growing completion is its answer: the text ends in `Answer:`."""
    return _BEFORE_ANSWER.search(text) is not None


def _own_part(completion: str) -> str:
    """The completion up to where it begins another question after an answer of its own."""
    for question in _NEXT_QUESTION.finditer(completion):
        own = completion[: question.start()]
        if ANSWER.pattern.search(own) or LONE_WORD.pattern.search(own):
            return own
    return completion


def _last(matches: Iterable[re.Match[str]]) -> re.Match[str] | None:
    """The match that ends last, and of those with the same end the longest."""
    return max(matches, key=lambda match: (match.end(), -match.start()), default=None)


def _last_prose(text: str) -> re.Match[str] | None:
    """The last verdict in prose that is neither negated nor hypothetical."""
    matches = (match for rule in PROSE for match in rule.pattern.finditer(text))
    return _last(match for match in matches if not _HYPOTHETICAL.search(_sentence_before(match)))


def _sentence_before(match: re.Match[str]) -> str:
    """What precedes a match in its own sentence."""
    line = match.string[: match.start()].rpartition("\n")[2]
    return line.rpartition(". ")[2]
