"""What rows say: their text, when they end, and the labels' probabilities where they decide. Computes no logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from hardsoft.core.chat import Chat, Completion, Probabilities, opening, scored_completion
from hardsoft.core.errors import InputError
from hardsoft.engines.local.rows import Generated
from hardsoft.engines.local.tokens import Encoder
from hardsoft.prompting.answers import answer_is_complete, is_before_answer
from hardsoft.prompting.spoken import open_reasoning

UNTEMPERED = {"label": 1.0, "reason": 1.0, "opening": 1.0}


@dataclass(frozen=True)
class Hints:
    """What a checkpoint that was trained to label says of it in its config.json; other checkpoints say nothing.

    There they are `label_openings: {after: text, words: [three]}` and `label_temperature: {label: T, reason: T, opening: T}`.
    """

    after: str = ""
    """The text in Step 1 behind which the label is decided."""
    words: Sequence[str] = ()
    """The words that follow it for Hard, Soft and Unknown; none where the model has no such place."""
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """For labels scored alone, for the answer after reasoning, and for the opening; see `tempered`."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Hints":
        """The hints in a config.json."""
        openings = config.get("label_openings", {})
        return cls(openings.get("after", ""), openings.get("words", ()), config.get("label_temperature", {}))

    def as_config(self) -> dict[str, Any]:
        """The entries of config.json."""
        openings = {"after": self.after, "words": list(self.words)}
        return {"label_openings": openings, "label_temperature": dict(self.temperatures)}


class Wording:
    """Rows that complete chats of one kind, in words."""

    def __init__(self, encoder: Encoder, example: Chat, stops: set[int], hints: Hints) -> None:
        """
        Args:
            example: one of the chats.
            stops: token ids that end a message.
        """
        self._tokenizer, self._start, self._stops, self._hints = encoder.tokenizer, opening(example), stops, hints
        self._temperatures = UNTEMPERED | dict(hints.temperatures)
        self._word = cache(self._decoded_word)
        self._begun = cache(self._decoded_beginning)
        # Behind an opening the answer is nearly certain, so that its own probability says little.
        self._kinds = [self._tokenizer.encode(word, add_special_tokens=False)[0] for word in hints.words]
        self.watch = self._kinds + _answer_ids(encoder, example)
        """Token ids whose logits `probabilities` needs: of the openings, and of each label after `Answer:`."""

    def completion(self, row: Generated) -> Completion:
        """What a finished row says."""
        reason = "stop" if row.stopped else "length"
        return Completion(self.text(row), reason, len(row.tokens), self.probabilities(row))  # type: ignore[arg-type]

    def text(self, row: Generated, end: int | None = None) -> str:
        """The assistant's message so far, or up to a token."""
        # Decoded after the prompt's last token, since some tokenizers drop the blank before a text's first word.
        last = row.prompt[-1]
        decoded = str(self._tokenizer.decode([last, *row.tokens[:end]], skip_special_tokens=True))
        return self._begun(tuple(row.prompt[-8:])) + decoded[len(self._word(last)) :]

    def stops(self, row: Generated) -> bool:
        """Whether a row has ended its message, or given its answer."""
        newest = row.tokens[-1]
        return newest in self._stops or ("\n" in self._word(newest) and answer_is_complete(self.text(row)))

    def probabilities(self, row: Generated) -> Probabilities | None:
        """Those of the labels at the first opening, else at the last answer; None where neither is to be found."""
        kinds = len(self._kinds)
        for place, logits in row.watched if kinds else ():
            if self.text(row, place).endswith(self._hints.after):
                return tempered(softmax(logits[:kinds]), self._temperatures["opening"])
        for place, logits in reversed(row.watched) if len(self.watch) > kinds else ():
            if is_before_answer(self.text(row, place)):
                return tempered(softmax(logits[kinds:]), self._temperatures["reason"])
        return None

    def _decoded_word(self, token: int) -> str:
        return str(self._tokenizer.decode([token], skip_special_tokens=True))

    def _decoded_beginning(self, end_of_prompt: tuple[int, ...]) -> str:
        return self._start or open_reasoning(str(self._tokenizer.decode(list(end_of_prompt))))


def scored(start: str, probabilities: Sequence[float], hints: Hints) -> Completion:
    """The completion of a chat whose labels were scored.

    Args:
        start: how the chat begins the assistant's message.
    """
    return scored_completion(start, tempered(probabilities, hints.temperatures.get("label", 1.0)))


def softmax(logits: Sequence[float]) -> Probabilities:
    """Probabilities of the three labels from their logits."""
    hard, soft, unknown = torch.tensor(logits).softmax(0).tolist()
    return hard, soft, unknown


def tempered(probabilities: Sequence[float], temperature: float) -> Probabilities:
    """Probabilities whose logits are divided by a temperature (Guo et al. 2017, arXiv 1706.04599)."""
    if temperature == 1:
        hard, soft, unknown = probabilities
        return hard, soft, unknown
    powered = [probability ** (1 / temperature) for probability in probabilities]
    hard, soft, unknown = (power / sum(powered) for power in powered)
    return hard, soft, unknown


def _answer_ids(encoder: Encoder, chat: Chat) -> list[int]:
    """First token of each label after `Answer:` in the assistant's message; none where labels share it."""
    before = chat[:-1] if opening(chat) else chat
    try:
        return encoder.label_ids([*before, {"role": "assistant", "content": "Answer:"}])
    except InputError:
        return []
