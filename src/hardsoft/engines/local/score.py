"""Label scoring: the probabilities of a few next tokens, in one forward pass a row. Knows token ids only."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.lookahead import WINDOW, Lookahead, Row
from hardsoft.engines.local.prefixed import PrefixedModel


@torch.inference_mode()
def score(
    network: PreTrainedModel, rows: Iterable[Row], batch_size: int, candidates: Sequence[int], window: int = WINDOW
) -> Iterator[list[tuple[int, list[float]]]]:
    """Probabilities of the candidate next tokens after each prompt, normalised over the candidates: one forward pass a row.

    Args:
        network, rows, window: see `decode.decode`.
        batch_size: rows of one pass.

    Yields:
        For the rows of each pass, a row's number and its probabilities, in the order of the candidates.

    Raises:
        NotImplementedError: see `decode.decode`.
    """
    ahead = Lookahead(rows, window)
    with shared_prefix(network):
        while ahead.renew():
            model = PrefixedModel(network, ahead.prefix)
            while taken := ahead.take(batch_size):
                logits, _ = model.prefill([prompt for _, prompt in taken])
                probabilities = logits[:, list(candidates)].float().softmax(-1).tolist()
                yield [(row, values) for (row, _), values in zip(taken, probabilities, strict=True)]
