"""Greedy decoding of many prompts that begin alike.

Labelling asks the same long question about thousands of short names, so nearly every token of a prompt is everyone's: it is
computed once (`prefixed`). Rows decode side by side in a fixed number of slots (`cache`), each writing its keys and values at its
own length, so nothing is shifted or padded on the left. A row leaves the moment it stops, and a waiting row takes its slot.
Several tokens a step are guessed and checked, where guesses have been good (`drafts`).

Knows token ids and nothing of text, labels or skills.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median_low

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.cache import Slots
from hardsoft.engines.local.drafts import LONGEST_DRAFT, Drafts
from hardsoft.engines.local.prefixed import PrefixedModel

REFILL_SHARE = 8
"""Waiting rows enter when one slot in so many is free: one prefill for several rows costs little more than for one."""


@dataclass
class Generated:
    """What a row has generated so far."""

    row: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    """Ended by its stop rule; otherwise by the token limit."""
    watched: list[tuple[int, list[float]]] = field(default_factory=list)
    """For each generated token that is among the watched ones: its position in `tokens`, and the logits of all watched ones."""


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
            yield from _decode(PrefixedModel(network, prompts), min(slots, len(prompts)), max_new_tokens, stop, watch, drafting)


def _decode(
    model: PrefixedModel,
    count: int,
    max_new_tokens: int,
    stop: Callable[[int, list[int]], bool],
    watch: Sequence[int],
    drafting: bool,
) -> Iterator[list[Generated]]:
    waiting = deque(model.longest_first())
    width = model.own_tokens(waiting[0]) + max_new_tokens + LONGEST_DRAFT
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
            logits, filled = model.prefill([row.row for row in entering.values()])
            first = logits.argmax(-1)
            cache = cache or Slots(count, width, filled)
            cache.enter(list(entering), filled, [model.own_tokens(row.row) for row in entering.values()], first)
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
            logits = model.step(cache, guesses, max(model.own_tokens(row.row) + len(row.tokens) for row in live.values()))
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
