"""How a label is read out of a completion.

A verdict must be stated: `Answer: X`, a label that the text begins or ends with, or prose that says so ("I would classify it
as X"). Text that merely mentions the words Hard and Soft is no verdict, and none is guessed. What a model thinks aloud is not
read (`spoken`), nor what it says of another skill. The first answer counts; a later one replaces it only right behind words that
say so ("Wait, …", "Correction: …").

Knows text only, neither models nor tokens, and leaves to `patterns` what a verdict looks like.
"""

import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hardsoft.core.chat import FinishReason
from hardsoft.core.labels import Label, Outcome
from hardsoft.prompting.patterns import (
    ANSWER_LINE,
    ANSWER_LINES,
    BEFORE_ANSWER,
    CLOSING,
    CORRECTION,
    DECLINED,
    HYPOTHETICAL,
    JSON_KEY,
    JSON_LABEL,
    LABEL_ABOVE,
    LEADING,
    MENTIONS,
    NAMED_ANSWER,
    NEXT_QUESTION,
    PROSE,
    TABLE,
    TAUGHT,
)
from hardsoft.prompting.spoken import plain, spoken_part

CORRECTIONS = 4
"""Times that a text may correct itself."""
_CONTEXT = 300
"""Characters before a verdict that may make it hypothetical."""
_HEADINGS = 3
"""Next questions that are looked for."""


@dataclass(frozen=True)
class Reading:
    """A label, why it was given, and the words it was read from (empty if no verdict is stated)."""

    label: Label
    outcome: Outcome
    answer: str


def read_answer(completion: str, finish_reason: FinishReason) -> Reading:
    """Read the verdict that a completion states.

    An answer at the start of a line wins, or a label that the text begins with (the first of them); then an answer within a
    sentence (the last), a line that is the label alone at the end, and the last verdict in prose.

    Args:
        completion: the assistant's whole message.
        finish_reason: stop (the model ended it), length (the token limit did), content_filter (the provider did) or error
            (there is none).

    Returns:
        The label with its outcome; Unknown with truncated, unparseable, abstained or error where no verdict is stated.
    """
    if finish_reason == "error":
        return Reading(Label.UNKNOWN, Outcome.ERROR, "")
    if finish_reason == "content_filter":
        return Reading(Label.UNKNOWN, Outcome.ABSTAINED, "")
    taught = TAUGHT.fullmatch(completion)
    if taught:
        label = Label(taught["label"])
        return Reading(label, Outcome.ABSTAINED if label is Label.UNKNOWN else Outcome.ANSWERED, taught["answer"])
    return _read_any(completion, finish_reason)


def _read_any(completion: str, finish_reason: FinishReason) -> Reading:
    """`read_answer` of a text in whatever form."""
    spoken = spoken_part(completion)
    text = plain(spoken)
    own = text
    for question in islice(NEXT_QUESTION.finditer(text), _HEADINGS):
        before = text[: question.start()].rstrip()
        if before and (_stated(before, "stop") or _declines(before)):
            own = before
            break
    stated = _in_json(spoken) or _corrected(own, finish_reason)
    if stated:
        groups = stated.groupdict()
        label = Label(groups["label"].capitalize()) if groups["label"] else Label.UNKNOWN
        outcome = Outcome.ABSTAINED if label is Label.UNKNOWN else Outcome.ANSWERED
        return Reading(label, outcome, " ".join(stated[0].split()))
    if finish_reason == "length":
        return Reading(Label.UNKNOWN, Outcome.TRUNCATED, "")
    return Reading(Label.UNKNOWN, Outcome.ABSTAINED if _declines(own) else Outcome.UNPARSEABLE, "")


def answer_is_complete(text: str) -> bool:
    """Whether a growing completion holds a whole line `Answer: X`, which the next token can no longer change."""
    return ANSWER_LINE.search(spoken_part(text)) is not None


def is_before_answer(text: str) -> bool:
    """Whether the next word of a growing completion is its answer: the text ends in `Answer:`."""
    return BEFORE_ANSWER.search(text[-80:]) is not None and bool(spoken_part(text).strip())


def _corrected(text: str, finish_reason: FinishReason) -> re.Match[str] | None:
    """The stated verdict, or the one behind words that take it back."""
    stated = _stated(text, finish_reason)
    for _ in range(CORRECTIONS):
        correction = CORRECTION.match(stated.string, stated.end()) if stated else None
        later = _stated(correction.string[correction.end() :].strip(), finish_reason) if correction else None
        if later is None:
            break
        stated = later
    return stated


def _stated(text: str, finish_reason: FinishReason) -> re.Match[str] | None:
    lines = [match for rule in ANSWER_LINES for match in islice(rule.pattern.finditer(text), 1)]
    leading = LEADING.pattern.search(text)
    if leading and not _defines(leading):
        lines.append(leading)
    if table := _in_table(text):
        lines.append(table)
    if lines:
        return min(lines, key=lambda match: (match.start(), -match.end()))
    mentions = [match for rule in MENTIONS for match in rule.pattern.finditer(text) if not _is_hypothetical(match)]
    if mentions:
        return max(mentions, key=lambda match: match.end())
    final = CLOSING.pattern.search(text)
    if final and not LABEL_ABOVE.search(text[: final.start()][-60:]):
        return final
    return _last_prose(text, finish_reason)


def _defines(leading: re.Match[str]) -> bool:
    """Whether a text that begins with a label goes on to say what the others are, and so answers nothing."""
    rest = leading.string[leading.end() : leading.end() + _CONTEXT]
    others = r"|".join(name for name in ("hard", "soft", "unknown") if name != leading["label"].lower())
    return (
        re.search(rf"(?:^|\n|[.;!?]\s)\W{{0,6}}(?:{others})(?:\sskills?)?\W{{0,4}}(?:\s?[:–—-]\s|\n|\Z)", rest, re.IGNORECASE)
        is not None
    )


def _in_json(text: str) -> re.Match[str] | None:
    """The label under the one key of a JSON object that is named as an answer is."""
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0:
        return None
    try:
        value: Any = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    named = [answer for name, answer in value.items() if JSON_KEY.search(name)]
    if len(named) != 1:
        return None
    answer = named[0][0] if isinstance(named[0], list) and len(named[0]) == 1 else named[0]
    return JSON_LABEL.match("null" if answer is None else str(answer))


def _in_table(text: str) -> re.Match[str] | None:
    """The label in the first row of a table, in the column that is named as an answer is."""
    table = TABLE.search(text)
    if table is None:
        return None
    names, cells = table["head"].split("|"), table["row"].split("|")
    for name, cell in zip(names, cells, strict=False):
        if NAMED_ANSWER.fullmatch(name):
            return JSON_LABEL.match(cell)
    return None


def _last_prose(text: str, finish_reason: FinishReason) -> re.Match[str] | None:
    """The last verdict in prose that is neither negated nor hypothetical; a word that the token limit cut off is none."""
    matches = [match for rule in PROSE for match in rule.pattern.finditer(text) if not _is_hypothetical(match)]
    if finish_reason == "length":  # "this makes it hard" may have been going on
        matches = [match for match in matches if match.end() < len(text) or match["label"][0].isupper()]
    return max(matches, key=lambda match: (match.end(), -match.start()), default=None)


def _declines(text: str) -> bool:
    return any(rule.pattern.search(text) for rule in DECLINED)


def _is_hypothetical(match: re.Match[str]) -> bool:
    """Whether what precedes a match in its own sentence makes it a condition, a doubt or a denial."""
    before = match.string[max(0, match.start() - _CONTEXT) : match.start()].rpartition("\n")[2]
    return HYPOTHETICAL.search(before.rpartition(". ")[2]) is not None
