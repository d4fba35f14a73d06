"""Greedy decoding of many prompts that begin alike: which rows enter, which take a step, and which have ended.

Labelling asks the same long question about thousands of short names, so nearly every token of a prompt is everyone's: it is
computed once (`prefixed`). Rows decode side by side in a fixed number of slots, each writing its keys and values at its own
length, so nothing is shifted or padded on the left. A row leaves the moment it stops, and a waiting row (`lookahead`) takes
its slot. What computes the tokens is a decoder: `eager`, for a CPU, or `graphed`, for a GPU.

Knows token ids and no tensors, and nothing of text, labels or skills.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import torch
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.lookahead import Lookahead
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.local.rows import Generated, Job, Row

REFILL_SHARE = 8
"""Waiting rows enter when one slot in so many is free: one prefill for several rows costs little more than for one."""

Token = tuple[int, int, Callable[[], list[float]]]
"""A slot, its next token, and the logits of the watched tokens there."""
Read = Callable[[], Iterator[Token]]
"""What was launched, read: the next token, or tokens, of each slot; waits until it is computed."""


class Decoder(Protocol):
    """A model with a number of slots."""

    behind: int
    """Launches that go on while the one before them is read: what a row computes after its end is lost."""

    def enter(self, rows: Mapping[int, Generated]) -> Read:
        """Launch the prefill of rows, by the free slots that they take."""

    def step(self, rows: Mapping[int, Generated]) -> Read:
        """Launch a step of the live rows, by their slots."""


MakeDecoder = Callable[[PrefixedModel, Job], Decoder]


@torch.inference_mode()
def decode(network: PreTrainedModel, rows: Iterable[Row], job: Job, decoder: MakeDecoder) -> Iterator[list[Generated]]:
    """Complete prompts greedily, yielding rows as they finish, those of one step together.

    Args:
        network: a causal LM; within the loop its attention implementation is another.
        rows: numbers and prompts of at least one token; taken as there is room, so that there may be any number of them.
        decoder: made anew for each prefix.

    Raises:
        NotImplementedError: the network's attention cannot be replaced, or does more than scaled dot products.
    """
    ahead = Lookahead(rows, max(job.window, job.slots))
    with shared_prefix(network):
        while ahead.renew():
            yield from _decode_alike(decoder(PrefixedModel(network, ahead.prefix), job), ahead, job)


def _decode_alike(decoder: Decoder, ahead: Lookahead, job: Job) -> Iterator[list[Generated]]:
    """Complete all rows that begin with the decoder's prefix."""
    live: dict[int, Generated] = {}
    launched: deque[tuple[dict[int, Generated], Read]] = deque()
    while ahead.waits() or live or launched:
        free, left = [slot for slot in range(job.slots) if slot not in live], decoder.behind
        if ahead.waits() and (not live or len(free) * REFILL_SHARE >= job.slots):
            entering = {slot: Generated(*row) for slot, row in zip(free, ahead.take(len(free)), strict=False)}
            launched.append((entering, decoder.enter(entering)))
            live |= entering
        elif live:
            stepping = dict(live)  # as it is now: rows leave before this is read
            launched.append((stepping, decoder.step(stepping)))
        else:
            left = 0
        finished = []
        while len(launched) > left:
            rows, read = launched.popleft()
            for slot, token, logits in read():
                if live.get(slot) is rows[slot] and not job.give(rows[slot], token, logits):
                    finished.append(live.pop(slot))
        if finished:
            yield finished
