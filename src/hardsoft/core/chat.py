"""What is asked and what is answered: chats and completions. Knows neither who completes them nor how answers are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hardsoft.core.labels import Label

Chat = list[dict[str, str]]
"""Messages with a role and content; a final assistant message is one that the model goes on from."""

FinishReason = Literal["stop", "length", "content_filter", "error"]
"""The model ended its message or gave its answer, the token limit or a provider's filter ended it, or the engine failed."""

Probabilities = tuple[float, float, float]
"""Of Hard, Soft and Unknown, summing to 1."""


@dataclass(frozen=True)
class Completion:
    """What a model answered in a chat."""

    text: str
    """The assistant's whole message, what the chat began it with included; for an error, what went wrong."""
    finish_reason: FinishReason
    tokens: int
    """Generated, the end-of-sequence token included."""
    probabilities: Probabilities | None = None
    """Of the labels at the place of the answer; None where that place or they are not known."""


def opening(chat: Chat) -> str:
    """How a chat begins the assistant's message; empty if that is left to the model."""
    return chat[-1]["content"] if chat[-1]["role"] == "assistant" else ""


def answer_text(start: str, label: Label) -> str:
    """The message that begins with `start` and goes on with a label."""
    return f"{start}{' ' if start and not start[-1].isspace() else ''}{label}"


def scored_completion(start: str, probabilities: Sequence[float]) -> Completion:
    """The completion of a chat whose labels were scored: the most probable label after what the message begins with."""
    hard, soft, unknown = probabilities
    label = list(Label)[max(range(3), key=probabilities.__getitem__)]
    return Completion(answer_text(start, label), "stop", 1, (hard, soft, unknown))
