"""Label scoring: the probabilities of a few next tokens, in one forward pass a row."""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.prefixed import PrefixedModel


@torch.inference_mode()
def score(
    network: PreTrainedModel, prompts: Sequence[list[int]], batch_size: int, candidates: Sequence[int]
) -> Iterator[list[tuple[int, list[float]]]]:
    """Probabilities of the candidate next tokens after each prompt, normalised over the candidates: one forward pass a row.

    Yields:
        For the rows of each pass, a prompt's position and its probabilities, in the order of the candidates.

    Raises:
        NotImplementedError: see `decode.decode`.
    """
    if not prompts:
        return
    with shared_prefix(network):
        model = PrefixedModel(network, prompts)
        order = model.longest_first()
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            logits, _ = model.prefill(rows)
            yield list(zip(rows, logits[:, list(candidates)].float().softmax(-1).tolist(), strict=True))
