"""Greedy decoding of many prompts that begin alike.

Labelling asks the same long question about thousands of short names, so nearly every token of a prompt is everyone's: it is
computed once (`prefixed`). Rows decode side by side in a fixed number of slots (`cache`), each writing its keys and values at its
own length, so nothing is shifted or padded on the left. A row leaves the moment it stops, and a waiting row (`lookahead`) takes
its slot. Several tokens a step are guessed and checked, where guesses have been good (`drafts`).

Knows token ids and nothing of text, labels or skills.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median_low

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.cache import Slots
from hardsoft.engines.local.drafts import LONGEST_DRAFT, Drafts
from hardsoft.engines.local.generated import Generated, Stop
from hardsoft.engines.local.lookahead import Lookahead, Row
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.shares import WINDOW

REFILL_SHARE = 8
"""Waiting rows enter when one slot in so many is free: one prefill for several rows costs little more than for one."""


@torch.inference_mode()
def decode(
    network: PreTrainedModel,
    rows: Iterable[Row],
    slots: int,
    max_new_tokens: int,
    stop: Stop,
    window: int = WINDOW,
    watch: Sequence[int] = (),
    drafting: bool = True,
) -> Iterator[list[Generated]]:
    """Complete prompts greedily, yielding rows as they finish, those of one step together.

    Args:
        network: a causal LM; its attention implementation is replaced.
        rows: numbers and prompts of at least one token; taken as there is room, so that there may be any number of them.
        slots: how many rows decode at once.
        max_new_tokens: the limit of each row.
        stop: the stop rule.
        window: how many rows to look ahead over, for their common prefix and their order.
        watch: token ids whose logits are recorded wherever one of them is generated.
        drafting: whether to guess several tokens a step, see `Drafts`; it changes no token.

    Raises:
        NotImplementedError: the network's attention cannot be replaced, or does more than scaled dot products.
    """
    ahead = Lookahead(rows, max(window, slots))
    drafts = Drafts()
    with shared_prefix(network):
        while ahead.renew():
            model = PrefixedModel(network, ahead.prefix)
            yield from _decode_alike(model, ahead, slots, max_new_tokens, stop, watch, drafts if drafting else None)


def _decode_alike(
    model: PrefixedModel,
    ahead: Lookahead,
    slots: int,
    max_new_tokens: int,
    stop: Stop,
    watch: Sequence[int],
    drafts: Drafts | None,
) -> Iterator[list[Generated]]:
    """Complete all rows that begin with the model's prefix."""
    device = model.device
    cache: Slots | None = None
    live: dict[int, Generated] = {}
    count = 0
    watched, columns = frozenset(watch), list(watch)

    def take(row: Generated, token: int, logits: Tensor, *place: int) -> bool:
        """Give a row its next token, chosen from the logits at a place; whether it goes on."""
        goes_on = row.take(token, stop, max_new_tokens)
        if drafts:
            drafts.learn(row.tokens)
        if token in watched:
            row.watched.append((len(row.tokens) - 1, logits[place][columns].float().tolist()))
        return goes_on

    while ahead.waits() or live:
        finished = []
        if ahead.waits() and (not live or (slots - len(live)) * REFILL_SHARE >= slots):
            rows = [Generated(row, prompt) for row, prompt in ahead.take(slots - len(live))]
            lengths = [model.own_tokens(row.prompt) for row in rows]
            logits, filled = model.prefill([row.prompt for row in rows])
            first = logits.argmax(-1)
            count = max(count, len(live) + len(rows))
            entering = dict(zip((slot for slot in range(count) if slot not in live), rows, strict=False))
            cache = cache or Slots(filled)
            cache.make_room(count, max(lengths) + max_new_tokens + LONGEST_DRAFT)
            cache.enter(torch.tensor(list(entering), device=device), filled, torch.tensor(lengths, device=device), first)
            for place, ((slot, row), token) in enumerate(zip(entering.items(), first.tolist(), strict=True)):
                if take(row, token, logits, place):
                    live[slot] = row
                else:
                    finished.append(row)
        else:
            assert cache is not None
            if not ahead.waits() and 2 * len(live) <= count:
                cache.keep(list(live))
                live = dict(enumerate(live.values()))
                count = len(live)
            found = {slot: drafts.guess(row.tokens) if drafts else [] for slot, row in live.items()}
            length = median_low(map(len, found.values()))
            guesses = [(found.get(slot, []) + [0] * length)[:length] for slot in range(count)]
            longest = max(model.own_tokens(row.prompt) + len(row.tokens) for row in live.values())
            drafted = torch.tensor(guesses, dtype=torch.long, device=device).view(count, length)
            logits = model.step(cache, drafted, longest)
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
