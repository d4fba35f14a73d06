"""Label scoring: the probabilities of a few next tokens, in one forward pass a row. Knows token ids only."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hardsoft.engines.local.attention import shared_prefix
from hardsoft.engines.local.lookahead import Lookahead
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.local.rows import Row
from hardsoft.engines.local.transfer import ToHost
from hardsoft.engines.shares import WINDOW


@torch.inference_mode()
def score(
    network: PreTrainedModel, rows: Iterable[Row], candidates: Sequence[int], batch_size: int, window: int = WINDOW
) -> Iterator[list[tuple[int, list[float]]]]:
    """Probabilities of the candidate next tokens after each prompt, normalised over the candidates: one forward pass a row.

    Args:
        network, rows: see `loop.decode`.
        batch_size: rows of one pass.
        window: rows to look ahead over.

    Yields:
        For the rows of each pass, a row's number and its probabilities, in the order of the candidates.

    Raises:
        NotImplementedError: see `loop.decode`.
    """
    ahead = Lookahead(rows, window)
    launched: deque[tuple[list[Row], ToHost]] = deque()
    behind = 1 if network.device.type == "cuda" else 0  # batches that a GPU computes while the last one's results are read
    with shared_prefix(network), only_logits_of(network, candidates) as columns:
        while ahead.renew():
            model = PrefixedModel(network, ahead.prefix)
            while taken := ahead.take(batch_size):
                logits, _ = model.prefill([prompt for _, prompt in taken])
                launched.append((taken, ToHost(logits[:, columns].float().softmax(-1))))
                if len(launched) > behind:
                    yield _scores(*launched.popleft())
        for batch in launched:
            yield _scores(*batch)


def _scores(rows: list[Row], probabilities: ToHost) -> list[tuple[int, list[float]]]:
    return [(row, values) for (row, _), values in zip(rows, probabilities.wait().tolist(), strict=True)]


@contextmanager
def only_logits_of(network: PreTrainedModel, candidates: Sequence[int]) -> Iterator[slice | list[int]]:
    """The candidates' columns of the logits, a slice or a list; in this context an output layer of words computes no others."""
    whole = network.get_output_embeddings()
    if type(whole) is not nn.Linear:
        yield list(candidates)
        return
    network.set_output_embeddings(OutputRows(whole, list(candidates)))
    try:
        yield slice(None)
    finally:
        network.set_output_embeddings(whole)


class OutputRows(nn.Module):
    """Some of the outputs of a linear layer."""

    def __init__(self, linear: nn.Linear, rows: list[int]) -> None:
        super().__init__()
        self._weight, self._bias = linear.weight[rows], None if linear.bias is None else linear.bias[rows]

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self._weight, self._bias)
