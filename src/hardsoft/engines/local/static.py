"""Greedy decoding in steps of one shape, which a GPU runs without the host.

The loop of `decode`, for devices that are faster than the host that drives them: every slot takes part in every step, whether a
row lives in it or not, own keys are read up to a bucket's end, rows enter in groups of a few sizes, and all of it is captured
once for each shape and replayed (`graphs`). The stop rule works on the host one step behind, while the device takes the next
step: a row that stops wastes that one step.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.cache import Slots
from hardsoft.engines.local.decode import REFILL_SHARE
from hardsoft.engines.local.generated import Generated, Stop
from hardsoft.engines.local.graphs import Replayed
from hardsoft.engines.local.lookahead import Lookahead, Row
from hardsoft.engines.local.prefixed import PrefixedModel, padded
from hardsoft.engines.local.transfer import ToHost, to_device
from hardsoft.engines.shares import WINDOW

OWN_BUCKET = 32
"""Own keys are read up to a multiple of this."""
PROMPT_BUCKET = 8
"""What follows the prefix is padded to a multiple of this."""

Chosen = tuple[Tensor, Tensor]
"""Tokens [rows], and the logits [rows, watched] of the watched ones."""


@torch.inference_mode()
def decode_statically(
    network: PreTrainedModel,
    rows: Iterable[Row],
    slots: int,
    max_new_tokens: int,
    stop: Stop,
    window: int = WINDOW,
    watch: Sequence[int] = (),
) -> Iterator[list[Generated]]:
    """Like `decode.decode`, in static shapes and without guesses."""
    ahead = Lookahead(rows, max(window, slots))
    with shared_prefix(network):
        while ahead.renew():
            device = Device(PrefixedModel(network, ahead.prefix), slots, max_new_tokens, watch)
            yield from _decode_alike(device, ahead, slots, max_new_tokens, stop, watch)


def _decode_alike(
    device: "Device", ahead: Lookahead, slots: int, max_new_tokens: int, stop: Stop, watch: Sequence[int]
) -> Iterator[list[Generated]]:
    """Complete all rows that begin with the model's prefix."""
    live: dict[int, Generated] = {}
    launches: deque[Launch] = deque()
    watched = frozenset(watch)
    while ahead.waits() or live or launches:
        free = [slot for slot in range(slots) if slot not in live]
        launched = False
        if ahead.waits() and (not live or len(free) * REFILL_SHARE >= slots):
            entering = {slot: Generated(*row) for slot, row in zip(free, ahead.take(len(free)), strict=False)}
            launches.append(device.enter(entering))
            live |= entering
            launched = True
        elif live:
            launches.append(device.step(live))
            launched = True

        finished = []
        while len(launches) > launched:  # the newest is left to run
            launch = launches.popleft()
            for slot, token, logits in launch.read():
                row = launch.rows[slot]
                if live.get(slot) is not row:
                    continue
                goes_on = row.take(token, stop, max_new_tokens)
                if token in watched:
                    row.watched.append((len(row.tokens) - 1, logits))
                if not goes_on:
                    finished.append(live.pop(slot))
        if finished:
            yield finished


@dataclass
class Launch:
    """Something that the device was told to compute, and for which rows."""

    rows: dict[int, Generated]
    """By slot."""
    places: list[int]
    """Of each row in what was chosen."""
    tokens: ToHost
    logits: ToHost

    def read(self) -> Iterator[tuple[int, int, list[float]]]:
        """Each row's slot, token and watched logits; waits for the device."""
        tokens, logits = self.tokens.wait().tolist(), self.logits.wait().tolist()
        for slot, place in zip(self.rows, self.places, strict=True):
            yield slot, tokens[place], logits[place]


class Device:
    """A model with its slots: it prefills groups of rows and takes steps, telling at once what it was told to do."""

    def __init__(self, model: PrefixedModel, slots: int, max_new_tokens: int, watch: Sequence[int]) -> None:
        self._model, self._count, self._max_new_tokens = model, slots, max_new_tokens
        self._watch = torch.tensor(watch, dtype=torch.long, device=model.device)
        self._slots = model.no_slots()
        self._held = [0] * (slots + 1)
        """Own tokens in each slot; the last one is spare, for the rows that fill up a group."""
        self._pool = torch.cuda.graph_pool_handle() if model.device.type == "cuda" else None
        self._steps: dict[int, Replayed[Chosen]] = {}
        self._groups: dict[tuple[int, int], Group] = {}

    def enter(self, rows: dict[int, Generated]) -> Launch:
        """Prefill rows into slots, and choose the first token of each."""
        own = [row.prompt[-self._model.own_tokens(row.prompt) :] for row in rows.values()]
        longest = max(map(len, own))
        self._make_room(longest + self._max_new_tokens + 1)
        size = min(self._count, 1 << (len(own) - 1).bit_length())
        shape = size, rounded(longest, PROMPT_BUCKET)
        if shape not in self._groups:
            self._groups[shape] = Group(self._model, self._slots, shape, self._watch, self._pool)
        spare = size - len(own)
        chosen = self._groups[shape]([*rows, *[self._count] * spare], own + [[0]] * spare)
        for slot, tokens in zip(rows, own, strict=True):
            self._held[slot] = len(tokens)
        return Launch(rows, list(range(len(own))), *map(ToHost, chosen))

    def step(self, rows: dict[int, Generated]) -> Launch:
        """Let every slot take a step; rows are those that live."""
        seen = min(rounded(max(self._held[slot] for slot in rows) + 1, OWN_BUCKET), self._slots.width)
        if seen not in self._steps:
            self._steps[seen] = Replayed(lambda: self._take_step(seen), self._model.device, self._pool)
        chosen = self._steps[seen]()
        for slot in rows:
            self._held[slot] += 1
        return Launch(dict(rows), list(rows), *map(ToHost, chosen))

    def _take_step(self, seen: int) -> Chosen:
        last = self._slots.last
        chosen = choose(self._model.step(self._slots, last.new_empty(len(last), 0), seen)[:, 0], self._watch)
        self._slots.advance_by_one(chosen[0])
        return chosen

    def _make_room(self, width: int) -> None:
        if width > self._slots.width:
            self._slots.make_room(self._count + 1, rounded(width, OWN_BUCKET))
            self._steps.clear()  # they know where keys and values were
            self._groups.clear()


class Group:
    """Prefills groups of one shape into slots."""

    def __init__(self, model: PrefixedModel, slots: Slots, shape: tuple[int, int], watch: Tensor, pool: Any) -> None:
        """
        Args:
            shape: rows, and own tokens of each.
        """
        self._width = shape[1]
        self._ids = torch.zeros(shape, dtype=torch.long, device=model.device)
        self._lengths, self._places = (torch.zeros(shape[0], dtype=torch.long, device=model.device) for _ in range(2))

        def prefill() -> Chosen:
            logits, filled = model.prefill_padded(self._ids, self._lengths)
            chosen = choose(logits, watch)
            slots.enter(self._places, filled, self._lengths, chosen[0])
            return chosen

        self._prefill = Replayed(prefill, model.device, pool)

    def __call__(self, slots: list[int], rows: list[list[int]]) -> Chosen:
        ids, lengths = padded(rows, self._width)
        for given, buffer in ((ids, self._ids), (lengths, self._lengths), (torch.tensor(slots), self._places)):
            buffer.copy_(to_device(given, buffer.device))
        return self._prefill()


def choose(logits: Tensor, watch: Tensor) -> Chosen:
    """The likeliest token of each row, and the logits of the watched ones."""
    return logits.argmax(-1), logits.index_select(1, watch).float()


def rounded(number: int, bucket: int) -> int:
    """The next multiple of a bucket's size."""
    return -(-number // bucket) * bucket
