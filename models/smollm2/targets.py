"""What SmolLM2 is trained to write: the kind of thing that a name stands for, its family, one true sentence, the answer.

The first token after "It names" differs between the three kinds: it is the decision, and everything behind it follows.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from hardsoft.core.labels import Label

FAMILIES = Path("models/lexicon/families.csv")
LEAD = " It names"
OPENINGS = {Label.HARD: " something", Label.SOFT: " how", Label.UNKNOWN: " no"}
KINDS = {
    Label.HARD: f"{OPENINGS[Label.HARD]} one learns",
    Label.SOFT: f"{OPENINGS[Label.SOFT]} one behaves",
    Label.UNKNOWN: f"{OPENINGS[Label.UNKNOWN]} ability",
}
DECISION_WEIGHT = 8.0  # of the deciding token of Step 1
LABEL_WEIGHT = 5.0  # of the label where it is all that is asked for


@dataclass(frozen=True)
class Family:
    """What the names of a family have in common."""

    description: str
    why: str
    """A true sentence about them, without its capital and its full stop."""


@dataclass(frozen=True)
class Target:
    """What the model should write after a prompt, as token ids with the weight of each in the loss."""

    ids: list[int]
    weights: list[float]

    @property
    def decision(self) -> int:
        """Place of the token that decides on the label."""
        return self.weights.index(max(self.weights))


def read_families() -> dict[str, Family]:
    """The lexicon's families by name."""
    with open(FAMILIES, encoding="utf-8", newline="") as file:
        return {row["family"]: Family(row["description"], row["why"]) for row in csv.DictReader(file)}


def reasoned_answer(label: Label, family: Family) -> str:
    """The assistant's whole turn where it reasons first."""
    why = family.why[0].upper() + family.why[1:]
    return f"Step 1:{LEAD}{KINDS[label]}: {family.description}.\nStep 2: {why}.\nAnswer: {label}"


def target(tokenizer: PreTrainedTokenizerBase, label: Label, family: Family, prefill: str) -> Target:
    """The target behind a prompt's prefill, with the token that ends the turn.

    Raises:
        ValueError: the turn does not begin with the prefill.
    """
    if prefill == "Answer:":
        label_ids = _encode(tokenizer, f" {label}")
        return Target([*label_ids, _end(tokenizer)], [LABEL_WEIGHT, *[1.0] * len(label_ids)])
    text = reasoned_answer(label, family)
    if not text.startswith(prefill):
        raise ValueError(f"the answers do not begin with the prefill {prefill!r}")
    ids = [*_encode(tokenizer, text.removeprefix(prefill)), _end(tokenizer)]
    decision = ids.index(opening_ids(tokenizer)[label])
    return Target(ids, [DECISION_WEIGHT if place == decision else 1.0 for place in range(len(ids))])


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> dict[Label, int]:
    """The deciding token of each label."""
    return {label: _encode(tokenizer, OPENINGS[label])[0] for label in Label}


def check_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Assert that the tokenizer keeps the three openings, and the three labels, apart in their first token."""
    lead = _encode(tokenizer, LEAD)
    for label in Label:
        opening = _encode(tokenizer, OPENINGS[label])
        assert len(opening) == 1, f"{OPENINGS[label]!r} is not one token"
        kind = _encode(tokenizer, f"{LEAD}{KINDS[label]}:")
        assert kind[: len(lead) + 1] == [*lead, *opening], f"{OPENINGS[label]!r} changes the tokens around it"
    assert len(set(opening_ids(tokenizer).values())) == len(Label), "two openings are the same token"
    first = {_encode(tokenizer, f" {label}")[0] for label in Label}
    assert len(first) == len(Label), "two labels begin with the same token"


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _end(tokenizer: PreTrainedTokenizerBase) -> int:
    end: int = tokenizer.eos_token_id
    return end
