"""Whether the loop fits an architecture: its logits beside those of a plain forward pass, for one prompt and one step."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hardsoft.core.errors import InputError
from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.cache import Slots
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.memory import is_out_of_memory

EXACT, ROUNDED, EIGHT_BITS = 2e-4, 0.25, 0.5
"""Differences of logits that are rounding, as shares of the logits' standard deviation: in fp32; below it or in 4 bits; in 8.

Those of SmolLM2 135M under three prompts were up to 0.00001, 0.09 and 0.36 (int8 rounds a row by what stands beside it), those of
a loop that misplaces the rows' tokens 0.57 to 2.1. One that misplaces them by a single position, 0.02 to 0.06, is found in fp32
only.
"""


@torch.inference_mode()
def why_not(network: PreTrainedModel, prompt: list[int]) -> str | None:
    """Why the loop cannot take a network's rows; None if it can.

    Args:
        prompt: token ids, at least four.

    Raises:
        InputError: the network's logits are not finite.
    """

    first, second = network(torch.tensor([prompt], device=network.device), use_cache=False, logits_to_keep=2).logits[0].float()
    if first.isnan().any() or first.isposinf().any():  # minus infinity rules a token out
        raise InputError(f"the model's logits are not finite in {network.dtype}; set model.dtype to bfloat16 or float32")
    try:
        loop = _by_the_loop(network, prompt[:-1], prompt[-1])
    except Exception as error:  # whatever an unknown architecture does with arguments that it does not expect
        if is_out_of_memory(error):
            raise
        return str(error) if isinstance(error, NotImplementedError) else f"{type(error).__name__}: {error}"
    rounded = network.dtype != torch.float32 or getattr(network, "is_loaded_in_4bit", False)
    tolerance = EIGHT_BITS if getattr(network, "is_loaded_in_8bit", False) else ROUNDED if rounded else EXACT
    difference = max(_difference(ours, theirs) for ours, theirs in zip(loop, (first, second), strict=True))
    return None if difference <= tolerance else f"its logits differ by {difference:.2g} standard deviations"


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The root mean square of the logits' differences, in standard deviations; tokens that both rule out do not count."""
    finite = theirs.isfinite() | ours.isfinite()
    return float((ours - theirs)[finite].square().mean().sqrt() / theirs[theirs.isfinite()].std())


def _by_the_loop(network: PreTrainedModel, prompt: list[int], token: int) -> tuple[Tensor, Tensor]:
    """Logits after a prompt and after one more token, decoded beside a shorter row over a shared prefix."""
    rows = [prompt, prompt[:-1]]
    with shared_prefix(network):
        model = PrefixedModel(network, prompt[: len(prompt) // 2])
        lengths = torch.tensor([model.own_tokens(row) for row in rows], device=network.device)
        logits, filled = model.prefill(rows)
        slots, longest = Slots(filled), int(lengths.max()) + 1
        slots.make_room(len(rows), longest)
        slots.enter(torch.arange(2, device=network.device), filled, lengths, lengths.new_full((2,), token))
        step = model.step(slots, lengths.new_empty(2, 0), longest)
    return logits[0].float(), step[0, 0].float()
