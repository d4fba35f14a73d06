"""Greedy decoding of many prompts that begin alike.

Labelling asks the same long question about thousands of short names, so nearly every token of a prompt is everyone's. Here

- the keys and values of the longest common prefix are computed once and read by all rows in one matrix product (the idea of
  Hydragen, arXiv 2402.05099): `shared_prefix_attention`;
- only what follows the prefix, a row's own tokens, is prefilled: `Decoder.prefill`;
- rows decode side by side in a fixed number of slots, each writing its keys and values at its own length, so nothing is
  shifted or padded on the left: `Slots`. A row leaves the moment it stops, and a waiting row takes its slot: `decode`;
- several tokens a step are guessed and checked, where guesses have been good: `Drafts`.

The arithmetic is that of `model.forward`: in fp32 the tokens are those of plain `generate`. This file knows token ids and nothing
of text, labels or skills.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "shared_prefix"
REFILL_SHARE = 8
"""Waiting rows enter when one slot in so many is free: one prefill for several rows costs little more than for one."""
CONTEXT = 3
"""Tokens that a guess goes by."""
LONGEST_DRAFT = 4
LIKELY = 0.6
"""The probability with which all tokens of a guess should be right."""
MEMORY = 200
"""Tokens over which the accuracy of guesses is averaged."""


@dataclass
class Generated:
    """What a row has generated so far."""

    row: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    """Ended by its stop rule; otherwise by the token limit."""
    watched: list[tuple[int, list[float]]] = field(default_factory=list)
    """For each generated token that is among the watched ones: its position in `tokens`, and the logits of all watched ones."""


class KeyValues:
    """Collects each layer's keys and values, [kv_heads, rows, length, dim], from one forward pass."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2]

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with [rows, kv_heads, length, dim]; returns what its queries shall see."""
        self.layers.append((key.transpose(0, 1), value.transpose(0, 1)))
        return self.layers[layer_idx]


class Slots:
    """Keys and values of the rows being decoded, a slot each: [kv_heads, slots, width, dim] per layer."""

    def __init__(self, count: int, width: int, like: KeyValues) -> None:
        def empty(tensor: Tensor) -> Tensor:
            return tensor.new_zeros(tensor.shape[0], count, width, tensor.shape[3])

        self.layers = [(empty(key), empty(value)) for key, value in like.layers]
        self.width = width
        self.lengths = torch.zeros(count, dtype=torch.long, device=like.layers[0][0].device)
        """How many own tokens each slot holds."""
        self.last = torch.zeros_like(self.lengths)
        """Each slot's newest token, whose keys and values are not there yet."""

    def enter(self, slots: list[int], filled: KeyValues, lengths: list[int], tokens: Tensor) -> None:
        """Put prefilled rows, and the token that each has generated, into slots."""
        where = torch.tensor(slots, device=self.lengths.device)
        for (keys, values), (key, value) in zip(self.layers, filled.layers, strict=True):
            keys[:, where, : filled.length] = key
            values[:, where, : filled.length] = value
        self.lengths[where] = torch.tensor(lengths, device=self.lengths.device)
        self.last[where] = tokens

    def advance(self, counts: list[int], tokens: list[int]) -> None:
        """Each slot has so many more tokens, the newest of which is given."""
        device = self.lengths.device
        self.lengths = self.lengths + torch.tensor(counts, device=device)
        self.last = torch.tensor(tokens, device=device)

    def keep(self, slots: list[int]) -> None:
        """Drop every other slot."""
        where = torch.tensor(slots, device=self.lengths.device)
        self.layers = [(keys[:, where], values[:, where]) for keys, values in self.layers]
        self.lengths, self.last = self.lengths[where], self.last[where]

    def before_step(self, positions: Tensor, longest: int) -> Tensor:
        """Prepare for tokens at positions [slots, new]; returns which of `longest` places each sees, [slots, new, longest]."""
        device = positions.device
        self._seen = longest
        self._places = (torch.arange(len(positions), device=device)[:, None] * self.width + positions).flatten()
        return torch.arange(longest, device=device) <= positions[:, :, None]

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with the slots' new keys and values; returns all up to the longest live row."""
        keys, values = self.layers[layer_idx]
        keys.flatten(1, 2).index_copy_(1, self._places, key.transpose(0, 1).flatten(1, 2))
        values.flatten(1, 2).index_copy_(1, self._places, value.transpose(0, 1).flatten(1, 2))
        return keys[:, :, : self._seen], values[:, :, : self._seen]


class Drafts:
    """Guesses at a row's next tokens, from what rows have generated after the same few tokens before.

    Reasoning about one label after another is formulaic. A row's guessed tokens go through the network in one step, and those
    that the network itself would have chosen are kept, so nothing changes but the number of steps (Stern et al. 2018, arXiv
    1811.03115; Yang et al. 2023, arXiv 2304.04487).
    """

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}
        self._accuracy = 0.0

    def guess(self, tokens: list[int]) -> list[int]:
        """What may follow a row's tokens: as many as are likely to be all right, going by the recent guesses; often none."""
        length = 0
        while length < LONGEST_DRAFT and self._accuracy ** (length + 1) >= LIKELY:
            length += 1
        context = tuple(tokens[-CONTEXT:])
        guessed: list[int] = []
        while len(guessed) < length and context in self._next:
            guessed.append(self._next[context])
            context = (*context[1:], guessed[-1])
        return guessed

    def learn(self, tokens: list[int]) -> None:
        """A row's newest token is the last of these."""
        context = tuple(tokens[-CONTEXT - 1 : -1])
        right = self._next.get(context) == tokens[-1]
        self._accuracy += (right - self._accuracy) / MEMORY
        self._next[context] = tokens[-1]


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    prefix: KeyValues | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention over one prefix that all rows share and over each row's own keys.

    Args:
        query: [rows, heads, length, dim].
        key, value: [kv_heads, rows, own, dim], as `KeyValues` and `Slots` give them.
        attention_mask: added to the own scores, [rows or 1, 1, length, own].
        prefix: its keys and values, [kv_heads, 1, prefix, dim] per layer.

    Returns:
        [rows, length, heads, dim], and no weights.

    Raises:
        NotImplementedError: the model's attention does more than scaled dot products (a window, a soft cap, sinks).
    """
    rows, heads, length, dim = query.shape
    kv_heads, own = key.shape[0], key.shape[2]
    seen = own + (prefix.length if prefix else 0)
    if (options.get("sliding_window") or seen) < seen:
        raise NotImplementedError("shared_prefix_attention sees every token, not a sliding window")
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise NotImplementedError(f"shared_prefix_attention has no {name}")
    # Query heads that share a key head side by side: [kv_heads, rows, heads per kv head * length, dim].
    query = (query * scaling).reshape(rows, kv_heads, -1, dim).transpose(0, 1)
    scores = (query @ key.transpose(2, 3)).view(kv_heads, rows, -1, length, own) + attention_mask
    scores = scores.view(kv_heads, rows, -1, own)
    if prefix is None:
        output = scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ value
    else:
        prefix_key, prefix_value = prefix.layers[module.layer_idx]  # type: ignore[index]
        merged = query.reshape(kv_heads, -1, dim)
        shared = (merged @ prefix_key[:, 0].transpose(1, 2)).view(kv_heads, rows, scores.shape[2], -1)
        weights = torch.cat([shared, scores], -1).softmax(-1, dtype=torch.float32).to(query.dtype)
        to_prefix, to_own = weights.split([shared.shape[3], own], -1)
        output = to_own @ value + (to_prefix.reshape(kv_heads, merged.shape[1], -1) @ prefix_value[:, 0]).view_as(query)
    output = output.view(kv_heads, rows, -1, length, dim).permute(1, 3, 0, 2, 4)
    return output.reshape(rows, length, heads, dim), None


AttentionInterface.register(ATTENTION, shared_prefix_attention)


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """How many first tokens all prompts share; at least one token of each prompt is left out, for there must be a query."""
    first, last = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(shared, min(map(len, prompts)) - 1)


@contextmanager
def shared_prefix(network: PreTrainedModel) -> Iterator[None]:
    """Within this context the network's attention is `shared_prefix_attention`.

    Raises:
        NotImplementedError: the architecture's attention cannot be replaced.
    """
    before = network.config._attn_implementation
    if not network._supports_attention_backend:
        raise NotImplementedError(f"{type(network).__name__} takes no other attention")
    network.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        network.set_attn_implementation(before)


class Decoder:
    """A causal LM with the prefix of a set of prompts computed; its attention must be `shared_prefix_attention`."""

    def __init__(self, network: PreTrainedModel, prompts: Sequence[list[int]]) -> None:
        self._network = network
        self._lowest = torch.finfo(network.dtype).min
        self._length = common_prefix(prompts)
        self._prompts = prompts
        self._prefix: KeyValues | None = None
        if self._length:
            _, self._prefix = self._prefill([prompts[0][: self._length]], 0)

    def own_tokens(self, row: int) -> int:
        """How many tokens of a row's prompt follow the shared prefix."""
        return len(self._prompts[row]) - self._length

    def longest_first(self) -> list[int]:
        """Rows in an order in which neighbours are of similar length."""
        return sorted(range(len(self._prompts)), key=lambda row: (-len(self._prompts[row]), row))

    def prefill(self, rows: Sequence[int]) -> tuple[Tensor, KeyValues]:
        """Logits [rows, vocabulary] after each row's prompt, and the keys and values of its own tokens, padded on the right."""
        return self._prefill([self._prompts[row][self._length :] for row in rows], self._length)

    def _prefill(self, sequences: Sequence[Sequence[int]], start: int) -> tuple[Tensor, KeyValues]:
        device = self._network.device
        lengths = [len(sequence) for sequence in sequences]
        width = max(lengths)
        ids = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in sequences], device=device)
        future = torch.full((width, width), self._lowest, dtype=self._network.dtype, device=device)
        ends = sorted(set(lengths))
        filled = KeyValues()
        logits = self._network(
            ids,
            attention_mask=future.triu(1)[None, None],
            position_ids=torch.arange(start, start + width, device=device)[None],
            past_key_values=filled,
            use_cache=True,
            prefix=self._prefix,
            logits_to_keep=torch.tensor(ends, device=device) - 1,
        ).logits
        place = torch.tensor([ends.index(length) for length in lengths], device=device)
        return logits[torch.arange(len(lengths), device=device), place], filled

    def step(self, slots: Slots, drafts: list[list[int]], longest: int) -> Tensor:
        """Logits [slots, 1 + draft, vocabulary] after each slot's newest token and after each of its drafted ones.

        Args:
            drafts: for each slot, tokens that may follow, equally many.
            longest: own tokens of the longest live row, with its newest one.
        """
        device = slots.lengths.device
        drafted = torch.tensor(drafts, dtype=torch.long, device=device).view(len(drafts), -1)
        ids = torch.cat([slots.last[:, None], drafted], 1)
        positions = slots.lengths[:, None] + torch.arange(ids.shape[1], device=device)
        visible = slots.before_step(positions, longest + drafted.shape[1])
        logits: Tensor = self._network(
            ids,
            attention_mask=torch.zeros_like(visible, dtype=self._network.dtype).masked_fill_(~visible, self._lowest)[:, None],
            position_ids=positions + self._length,
            past_key_values=slots,
            use_cache=True,
            prefix=self._prefix,
        ).logits
        return logits


@torch.inference_mode()
def decode(
    network: PreTrainedModel,
    prompts: Sequence[list[int]],
    slots: int,
    max_new_tokens: int,
    stop: Callable[[int, list[int]], bool],
    watch: Sequence[int] = (),
    drafting: bool = True,
) -> Iterator[list[Generated]]:
    """Complete prompts greedily, yielding rows as they finish, those of one step together.

    Args:
        network: a causal LM; its attention implementation is replaced.
        prompts: token ids, at least one each.
        slots: how many rows decode at once.
        max_new_tokens: the limit of each row.
        stop: called with a row and its generated tokens after each new one; True ends the row.
        watch: token ids whose logits are recorded wherever one of them is generated.
        drafting: whether to guess several tokens a step, see `Drafts`; it changes no token.

    Raises:
        NotImplementedError: the network's attention cannot be replaced, or does more than scaled dot products.
    """
    if prompts:
        with shared_prefix(network):
            yield from _decode(Decoder(network, prompts), min(slots, len(prompts)), max_new_tokens, stop, watch, drafting)


def _decode(
    decoder: Decoder,
    count: int,
    max_new_tokens: int,
    stop: Callable[[int, list[int]], bool],
    watch: Sequence[int],
    drafting: bool,
) -> Iterator[list[Generated]]:
    waiting = deque(decoder.longest_first())
    width = decoder.own_tokens(waiting[0]) + max_new_tokens + LONGEST_DRAFT
    drafts = Drafts()
    cache: Slots | None = None
    live: dict[int, Generated] = {}
    watched, columns = frozenset(watch), list(watch)

    def take(row: Generated, token: int, logits: Tensor, *place: int) -> bool:
        """Give a row its next token, chosen from the logits at a place; whether it goes on."""
        row.tokens.append(token)
        drafts.learn(row.tokens)
        if token in watched:
            row.watched.append((len(row.tokens) - 1, logits[place][columns].float().tolist()))
        row.stopped = stop(row.row, row.tokens)
        return not row.stopped and len(row.tokens) < max_new_tokens

    while waiting or live:
        free = [slot for slot in range(count) if slot not in live]
        finished = []
        if waiting and (not live or len(free) * REFILL_SHARE >= count):
            entering = {slot: Generated(waiting.popleft()) for slot in free[: len(waiting)]}
            logits, filled = decoder.prefill([row.row for row in entering.values()])
            first = logits.argmax(-1)
            cache = cache or Slots(count, width, filled)
            cache.enter(list(entering), filled, [decoder.own_tokens(row.row) for row in entering.values()], first)
            for place, ((slot, row), token) in enumerate(zip(entering.items(), first.tolist(), strict=True)):
                if take(row, token, logits, place):
                    live[slot] = row
                else:
                    finished.append(row)
        else:
            assert cache is not None
            if not waiting and 2 * len(live) <= count:
                cache.keep(list(live))
                live = dict(enumerate(live.values()))
                count = len(live)
            found = {slot: drafts.guess(row.tokens) if drafting else [] for slot, row in live.items()}
            length = median_low(map(len, found.values()))
            guesses = [(found.get(slot, []) + [0] * length)[:length] for slot in range(count)]
            logits = decoder.step(cache, guesses, max(decoder.own_tokens(row.row) + len(row.tokens) for row in live.values()))
            chosen: list[list[int]] = logits.argmax(-1).tolist()
            counts, last = [0] * count, [0] * count
            for slot, row in list(live.items()):
                for place, token in enumerate(chosen[slot]):
                    goes_on = take(row, token, logits, slot, place)
                    counts[slot], last[slot] = place + 1, token
                    if not goes_on or place == length or guesses[slot][place] != token:
                        break
                if not goes_on:
                    finished.append(live.pop(slot))
            cache.advance(counts, last)
        if finished:
            yield finished


@torch.inference_mode()
def score(
    network: PreTrainedModel, prompts: Sequence[list[int]], batch_size: int, candidates: Sequence[int]
) -> Iterator[list[tuple[int, list[float]]]]:
    """Probabilities of the candidate next tokens after each prompt, normalised over the candidates: one forward pass a row.

    Yields:
        For the rows of each pass, a prompt's position and its probabilities, in the order of the candidates.

    Raises:
        NotImplementedError: see `decode`.
    """
    if not prompts:
        return
    with shared_prefix(network):
        decoder = Decoder(network, prompts)
        order = decoder.longest_first()
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            logits, _ = decoder.prefill(rows)
            yield list(zip(rows, logits[:, list(candidates)].float().softmax(-1).tolist(), strict=True))
