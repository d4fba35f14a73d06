"""A causal LM that has read what a set of prompts have in common: it prefills what follows, and decodes step by step.

Only a row's own tokens go through it. The arithmetic is that of `model.forward`: in fp32 tokens are those of plain `generate`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.engines.local.cache import KeyValues, Slots


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """How many first tokens all prompts share; at least one token of each prompt is left out, for there must be a query."""
    first, last = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(shared, min(map(len, prompts)) - 1)


class PrefixedModel:
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
