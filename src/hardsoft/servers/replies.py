"""What a chat completion says: its text, how it ended, what it cost; however servers of several makes write it. Asks nobody."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from openai.types.chat import ChatCompletion

from hardsoft.core.progress import note
from hardsoft.servers.tokens import read_first_token

STOPPED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "completed", "finished", "")
CUT = ("length", "max_tokens", "model_length", "max_output_tokens")
_note_once = cache(note)
FILTERED = ("content_filter", "safety", "refusal", "recitation")
"""Finish reasons, in lower case, as servers of several makes write them; none at all means stopped."""


class MalformedReplyError(Exception):
    """The server replied with something that is no chat completion."""


class UnusableReplyError(Exception):
    """A chat completion that cannot be used, and that would be no better if asked for again."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counts them; 0 where it does not."""

    input: int = 0
    cached_input: int = 0
    """Of `input`, those that the provider had read shortly before."""
    output: int = 0
    reasoning: int = 0
    """Of `output`, those that were not shown."""

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> "Usage":
        """Counts by these names, be they a server's or stored ones: whatever is no number of tokens is 0."""
        read = {name: _count(counts.get(name)) for name in ("input", "cached_input", "output", "reasoning")}
        return cls(read["input"], min(read["cached_input"], read["input"]), read["output"], read["reasoning"])


@dataclass(frozen=True)
class Reply:
    """What a chat completion says."""

    text: str
    finish_reason: Literal["stop", "length", "content_filter"]
    usage: Usage
    model: str
    """The model that replied, as the server names it."""
    first_token: dict[str, float] = field(default_factory=dict)
    """Log-probabilities of the likeliest first tokens, or of the choices, where they were asked for and the server tells."""


WITHHELD = Reply("", "content_filter", Usage(), "")
"""A question that the provider will not speak of."""


def read_reply(reply: ChatCompletion) -> Reply:
    """What a chat completion says; servers send whatever they like, and nothing of it is checked before.

    Raises:
        MalformedReplyError, UnusableReplyError: nothing that can be used.
    """
    try:
        return _read_reply(reply)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise MalformedReplyError(f"the reply is no chat completion ({type(error).__name__})") from None


def read_decision(decision: Any, choices: Sequence[str]) -> Reply:
    """What a decision says: the choice, with the log-probabilities of all that it tells.

    Raises:
        MalformedReplyError: it is no choice of those given.
    """
    try:
        (answer,), usage, model = decision.answers, getattr(decision, "usage", None), str(decision.model or "")
        counts = {name: getattr(usage, name, None) for name in ("input_tokens", "output_tokens")}
        cached = getattr(getattr(usage, "input_tokens_details", None), "cached_tokens", None)
        read = Usage.of({"input": counts["input_tokens"], "cached_input": cached, "output": counts["output_tokens"]})
        if answer.type == "refusal":
            return Reply("", "content_filter", read, model)
        if answer.type != "choice" or answer.choice not in choices:
            raise MalformedReplyError("the reply is no choice of those given")
        told = {str(share.value): float(share.probability) for share in answer.probabilities or ()}
        shares = {name: math.log(max(share, 1e-9)) for name, share in told.items() if math.isfinite(share)}
        return Reply(str(answer.choice), "stop", read, model, shares)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise MalformedReplyError(f"the reply is no decision ({type(error).__name__})") from None


def _read_reply(reply: ChatCompletion) -> Reply:
    if not isinstance(reply, ChatCompletion) or not reply.choices or reply.choices[0].message is None:
        words = getattr(reply, "error", None)
        said = words.get("message", words) if isinstance(words, dict) else words
        raise MalformedReplyError(f"the reply is an error: {said}" if said else "the reply has no choice")
    choice = reply.choices[0]
    message, reason = choice.message, str(choice.finish_reason or "").lower()
    usage = Usage.of(_counts(reply.usage))
    text = _text(message.content)
    if reason in FILTERED or getattr(message, "refusal", None):
        said = str(getattr(message, "refusal", None) or text)
        return Reply(said, "content_filter", usage, str(reply.model or ""))
    if reason not in (*STOPPED, *CUT):
        raise UnusableReplyError(f"the server ended the message with {choice.finish_reason!r}")
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if thought and not text and reason not in CUT:
        raise UnusableReplyError("the reply has no content, only reasoning_content")
    return Reply(text, "length" if reason in CUT else "stop", usage, str(reply.model or ""), read_first_token(choice.logprobs))


def _counts(usage: Any) -> dict[str, Any]:
    read, written = getattr(usage, "prompt_tokens_details", None), getattr(usage, "completion_tokens_details", None)
    return {
        "input": getattr(usage, "prompt_tokens", None),
        "cached_input": getattr(read, "cached_tokens", None),
        "output": getattr(usage, "completion_tokens", None),
        "reasoning": getattr(written, "reasoning_tokens", None),
    }


def _count(value: Any) -> int:
    """A count of tokens; 0 for what is none, which is told once."""
    if value is None:
        return 0
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0 and value % 1 == 0:
        return int(value)
    _note_once(f"the server counts tokens as {str(value)[:40]!r}, which is no number of them; it is taken for 0")
    return 0


def _text(content: Any) -> str:
    """A message's content as text, be it null, a list of parts, or with half a character in it."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text")]
        content = "".join(str(part.get("text") or "") for part in parts)
    return str(content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
