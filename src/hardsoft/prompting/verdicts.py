"""How a judge's verdict is read out of its reply: a JSON object, else an answer in words. Knows neither judge nor server.

What is thought aloud is left out first, as of a completion. An object counts where it stands on lines of its own at the end of
what is said; one within a sentence is a draft or an example. How it is written may differ from what was asked for as far as
nobody could take it for something else.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hardsoft.core.chat import FinishReason
from hardsoft.core.labels import Label
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.patterns import JSON_LABEL
from hardsoft.prompting.spoken import spoken_part

VERDICT_KEYS = ("verdict", "label", "answer", "classification", "category")
"""What models call the verdict."""
MOST_OBJECTS = 50
"""Opening braces that are looked at: text behind them counts as text."""

Pairs = tuple[tuple[str, Any], ...]
"""A JSON object with all its keys, should one come twice."""

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}]', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*"?)|,(?=\s*+[}\]])', re.DOTALL)
_BEFORE = re.compile(r"\s*(?:```[\w-]{0,20})?\s*\[?\s*")
_BEHIND = re.compile(r"\s*\]?\s*(?:```)?\s*")
_LIKE_AN_OBJECT = re.compile(r"\{\s*(?:[\"'“”‘’«„]|\w+\s*:)")


@dataclass(frozen=True)
class Stated:
    """A verdict and its reasons."""

    label: Label
    rationale: str


@dataclass(frozen=True)
class _Found:
    """An object in a text that holds a verdict, or should."""

    value: Pairs
    on_its_own_line: bool
    rest: str
    """The text behind it."""


def read_stated(reply: str, finish_reason: FinishReason) -> Stated | None:
    """The one verdict that a reply states; None if it states none, or several.

    Args:
        reply: the judge's whole message.
        finish_reason: of a reply that the token limit cut off only a whole object at its end counts.
    """
    spoken = spoken_part(reply)
    # A whole reply that is an object was not thought, whatever tags its rationale holds.
    found = list(_objects(reply)) if reply.lstrip().startswith("{") and reply.rstrip().endswith("}") else []
    found = found if len(found) == 1 else list(_objects(spoken))
    if found:
        last = found[-1]
        if any(other.value != last.value for other in found) or not last.on_its_own_line or not _BEHIND.fullmatch(last.rest):
            return None
        return _from_object(last.value)
    if finish_reason == "length" or _LIKE_AN_OBJECT.search(spoken):
        return None
    reading = read_answer(spoken, finish_reason)
    return Stated(reading.label, spoken.strip()) if reading.answer else None


def _objects(text: str) -> Iterator[_Found]:
    """The outermost JSON objects of a text that have a key for a verdict, in their order."""
    begin = end = 0
    for _ in range(MOST_OBJECTS):
        begin = text.find("{", begin)
        if begin < 0:
            return
        behind = _end_of_object(text, begin)
        value = _parsed(text[begin:behind]) if behind else None
        if value is not None and behind:
            if _verdicts(value):
                line = text[max(end, text.rfind("\n", 0, begin) + 1) : begin]
                yield _Found(value, _BEFORE.fullmatch(line) is not None, text[behind:])
            begin = end = behind
        else:
            begin += 1


def _end_of_object(text: str, begin: int) -> int | None:
    """Where the object that begins at a brace ends; None if it does not."""
    depth = 0
    for piece in _PIECE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(piece[0], 0)
        if not depth:
            return piece.end()
    return None


def _parsed(text: str) -> Pairs | None:
    """A JSON object, be there raw line breaks in its strings or commas too many; None if it is none."""
    try:
        value = json.loads(_TRAILING_COMMA.sub(r"\1", text), strict=False, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, tuple) else None


def _verdicts(value: Pairs, depth: int = 1) -> list[tuple[Any, Pairs]]:
    """What stands under the keys of verdicts, each with the object that it stands in; looked for `depth` objects deeper too."""
    own = [(answer, value) for key, answer in value if key.strip().lower() in VERDICT_KEYS and not _is_object(answer)]
    if own or not depth:
        return own
    return [verdict for _, inner in value if _is_object(inner) for verdict in _verdicts(inner, depth - 1)]


def _is_object(value: Any) -> bool:
    return isinstance(value, tuple)


def _from_object(value: Pairs) -> Stated | None:
    """The verdict of an object; None where it is no label, or two."""
    verdicts = _verdicts(value)
    labels = {_label(answer) for answer, _ in verdicts}
    label = labels.pop() if len(labels) == 1 else None
    if label is None:
        return None
    said = {key.strip().lower(): words for key, words in verdicts[0][1]}.get("rationale")
    return Stated(label, "" if said is None else str(said).encode("utf-8", "replace").decode())


def _label(answer: Any) -> Label | None:
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    match = JSON_LABEL.match(answer.strip(" \t\r\n*_`\"'.")) if isinstance(answer, str) else None
    return Label(match["label"].capitalize()) if match and match["label"] else None
