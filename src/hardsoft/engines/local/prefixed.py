"""A causal LM that has read what prompts begin with: it prefills what follows, and decodes step by step.

Only a row's own tokens go through it. The arithmetic is that of `model.forward`: in fp32 tokens are those of plain `generate`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.engines.local.cache import KeyValues, Slots


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

    def own_tokens(self, prompt: Sequence[int]) -> int:
        """How many tokens of a prompt follow the prefix."""
        return len(prompt) - self._length

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, KeyValues]:
        """Logits [rows, vocabulary] after each prompt, and the keys and values of its own tokens, padded on the right.

        Args:
            prompts: token ids, which begin with the prefix.
        """
        device, start = self._network.device, self._length
        lengths = [self.own_tokens(prompt) for prompt in prompts]
        width = max(lengths)
        ids = torch.tensor([[*prompt[start:], *[0] * (start + width - len(prompt))] for prompt in prompts], device=device)
        future = torch.full((width, width), self._lowest, dtype=self._network.dtype, device=device)
        filled = KeyValues()
        with self._only_logits_at(torch.tensor(lengths, device=device) - 1):
            logits = self._network(
                ids,
                attention_mask=future.triu(1)[None, None],
                position_ids=torch.arange(start, start + width, device=device)[None],
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
