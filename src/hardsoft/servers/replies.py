"""What a chat completion says: its text, how it ended, what it cost; however servers of several makes write it. Asks nobody."""

from dataclasses import dataclass, field
from typing import Any, Literal

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion

from hardsoft.core.secrets import mask
from hardsoft.servers.tokens import read_first_token

STOPPED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "completed", "finished", "")
CUT = ("length", "max_tokens", "model_length", "max_output_tokens")
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


def read_reply(reply: ChatCompletion, secret: str) -> Reply:
    """What a chat completion says.

    Args:
        secret: a key that no text may hold; empty for none.

    Raises:
        MalformedReplyError, UnusableReplyError: nothing that can be used.
    """
    if not isinstance(reply, ChatCompletion) or not reply.choices or reply.choices[0].message is None:
        words = getattr(reply, "error", None)
        said = words.get("message", words) if isinstance(words, dict) else words
        raise MalformedReplyError(f"the reply is an error: {said}" if said else "the reply has no choice")
    choice = reply.choices[0]
    message, reason = choice.message, str(choice.finish_reason or "").lower()
    usage = _usage(reply.usage)
    text = mask(_text(message.content), secret)
    if reason in FILTERED or getattr(message, "refusal", None):
        said = str(getattr(message, "refusal", None) or text)
        return Reply(mask(said, secret), "content_filter", usage, reply.model or "")
    if reason not in (*STOPPED, *CUT):
        raise UnusableReplyError(f"the server ended the message with {choice.finish_reason!r}")
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if thought and not text and reason not in CUT:
        raise UnusableReplyError("the reply has no content, only reasoning_content")
    return Reply(text, "length" if reason in CUT else "stop", usage, reply.model or "", read_first_token(choice.logprobs))


def _usage(usage: CompletionUsage | None) -> Usage:
    if usage is None:
        return Usage()
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        usage.prompt_tokens or 0,
        (read and read.cached_tokens) or 0,
        usage.completion_tokens or 0,
        (written and written.reasoning_tokens) or 0,
    )


def _text(content: Any) -> str:
    """A message's content as text, be it null, a list of parts, or with half a character in it."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text")]
        content = "".join(str(part.get("text") or "") for part in parts)
    return str(content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
