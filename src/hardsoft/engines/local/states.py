"""Hidden states at the end of prompts, behind several blocks at once: what read-outs are fitted on. Knows token ids only."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.check import why_not
from hardsoft.engines.local.lookahead import Lookahead
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.local.readout import decoder_of, normalised
from hardsoft.engines.local.rows import Row
from hardsoft.engines.shares import WINDOW


@contextmanager
def recorded(network: PreTrainedModel, layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within this context, what these blocks (from 1) put out in the newest forward pass, [rows, length, width] each."""
    blocks = decoder_of(network).layers
    newest: list[Tensor] = [torch.empty(0) for _ in layers]

    def keep(place: int, output: Tensor | tuple[Tensor, ...]) -> None:
        newest[place] = output if isinstance(output, Tensor) else output[0]

    hooks = [
        blocks[layer - 1].register_forward_hook(lambda _module, _inputs, output, place=place: keep(place, output))
        for place, layer in enumerate(layers)
    ]
    try:
        yield newest
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def last_states(
    network: PreTrainedModel, prompts: Sequence[list[int]], batch_size: int, layers: Sequence[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Hidden states at each prompt's last token, divided by their root mean square.

    Args:
        prompts: token ids, at least four each.
        batch_size: prompts of one pass.
        layers: of the blocks, counted from 1.

    Yields:
        For each pass its prompts' numbers, and their states [prompts, layers, width] in float32.

    Raises:
        InputError: an architecture whose blocks are not to be found.
    """
    with recorded(network, layers) as newest:
        if why_not(network, prompts[0]):
            for number, prompt in enumerate(prompts):
                network(torch.tensor([prompt], device=network.device), logits_to_keep=1)
                yield [number], torch.stack([normalised(states[:, -1]).cpu() for states in newest], dim=1)
            return
        yield from _shared_prefix_states(network, enumerate(prompts), batch_size, newest)


def _shared_prefix_states(
    network: PreTrainedModel, rows: Iterable[Row], batch_size: int, newest: list[Tensor]
) -> Iterator[tuple[list[int], Tensor]]:
    ahead = Lookahead(rows, WINDOW)
    with shared_prefix(network):
        while ahead.renew():
            model = PrefixedModel(network, ahead.prefix)
            while taken := ahead.take(batch_size):
                model.prefill([prompt for _, prompt in taken])
                every = torch.arange(len(taken), device=network.device)
                last = torch.tensor([model.own_tokens(prompt) - 1 for _, prompt in taken], device=network.device)
                yield (
                    [number for number, _ in taken],
                    torch.stack([normalised(states[every, last]).cpu() for states in newest], dim=1),
                )
