"""A causal LM that has read what prompts begin with: it prefills what follows, and decodes step by step.

Only a row's own tokens go through it. The arithmetic is that of `model.forward`: in fp32 tokens are those of plain `generate`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.engines.local.cache import KeyValues, Slots
from hardsoft.engines.local.transfer import to_device


class PrefixedModel:
    """A causal LM with the keys and values of a prefix computed; its attention must be `shared_prefix_attention`."""

    def __init__(self, network: PreTrainedModel, prefix: Sequence[int]) -> None:
        self._network = network
        self._lowest = torch.finfo(network.dtype).min
        self._length = 0
        self._prefix: KeyValues | None = None
        if prefix:
            _, self._prefix = self.prefill([prefix])
            self._length = len(prefix)

    @property
    def device(self) -> torch.device:
        return self._network.device

    def no_slots(self) -> Slots:
        """An empty cache for rows that begin with the prefix."""
        return Slots(self._prefix or self.prefill([[0]])[1])

    def own_tokens(self, prompt: Sequence[int]) -> int:
        """How many tokens of a prompt follow the prefix."""
        return len(prompt) - self._length

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, KeyValues]:
        """Logits [rows, vocabulary] after each prompt, and the keys and values of its own tokens, padded on the right.

        Args:
            prompts: token ids, which begin with the prefix.
        """
        own = [prompt[self._length :] for prompt in prompts]
        return self.prefill_padded(*(to_device(tensor, self.device) for tensor in padded(own, max(map(len, own)))))

    def prefill_padded(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, KeyValues]:
        """Like `prefill`, of what follows the prefix: ids [rows, width], of which so many [rows] are a row's own."""
        start, width = self._length, ids.shape[1]
        future = torch.full((width, width), self._lowest, dtype=self._network.dtype, device=self.device)
        filled = KeyValues()
        with self._only_logits_at(lengths - 1):
            logits = self._network(
                ids,
                attention_mask=future.triu(1)[None, None],
                position_ids=torch.arange(start, start + width, device=self.device)[None],
                past_key_values=filled,
                use_cache=True,
                prefix=self._prefix,
            ).logits
        return logits[:, 0], filled

    @contextmanager
    def _only_logits_at(self, places: Tensor) -> Iterator[None]:
        """Let the output layer, often a sixth of the model, see one place of each row."""
        rows = torch.arange(len(places), device=places.device)
        hook = self._network.get_output_embeddings().register_forward_pre_hook(
            lambda _, inputs: (inputs[0][rows, places][:, None],)
        )
        try:
            yield
        finally:
            hook.remove()

    def step(self, slots: Slots, drafted: Tensor, longest: int) -> Tensor:
        """Logits [slots, 1 + draft, vocabulary] after each slot's newest token and after each of its drafted ones.

        Args:
            drafted: for each slot, tokens that may follow, [slots, draft].
            longest: own tokens that are looked at, at least those of the longest live row with its newest one.
        """
        ids = torch.cat([slots.last[:, None], drafted], 1)
        positions = slots.lengths[:, None] + torch.arange(ids.shape[1], device=self.device)
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


def padded(rows: Sequence[Sequence[int]], width: int) -> tuple[Tensor, Tensor]:
    """Token ids [rows, width], filled up with zeros on the right, and the rows' lengths [rows]."""
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    return ids, torch.tensor([len(row) for row in rows])
