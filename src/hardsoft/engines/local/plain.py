"""Plain generation and scoring, for architectures whose attention cannot be replaced: like `decode` and `score`, slower."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from hardsoft.engines.local.generated import Generated, Stop
from hardsoft.engines.local.lookahead import Lookahead, Row
from hardsoft.engines.shares import WINDOW


@torch.inference_mode()
def decode_plainly(
    network: PreTrainedModel,
    rows: Iterable[Row],
    batch_size: int,
    max_new_tokens: int,
    stop: Stop,
    window: int = WINDOW,
    watch: Sequence[int] = (),
) -> Iterator[list[Generated]]:
    """Like `decode.decode`, with `generate` over left-padded batches; nothing is watched."""
    stops = network.generation_config.eos_token_id
    pad = stops[0] if isinstance(stops, list) else (stops or 0)
    generation = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=stops, pad_token_id=pad)
    ahead = Lookahead(rows, window)
    while ahead.renew():
        while taken := ahead.take(batch_size):
            width = max(len(prompt) for _, prompt in taken)
            missing = [width - len(prompt) for _, prompt in taken]
            ids = torch.tensor([[pad] * gap + prompt for gap, (_, prompt) in zip(missing, taken, strict=True)])
            mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in missing])
            output = network.generate(  # type: ignore[operator]
                ids.to(network.device), attention_mask=mask.to(network.device), generation_config=generation
            )
            yield [
                _until_stop(Generated(row, prompt), tokens, stop, max_new_tokens)
                for (row, prompt), tokens in zip(taken, output[:, width:].tolist(), strict=True)
            ]


@torch.inference_mode()
def score_plainly(
    network: PreTrainedModel, rows: Iterable[Row], batch_size: int, candidates: Sequence[int], window: int = WINDOW
) -> Iterator[list[tuple[int, list[float]]]]:
    """Like `score.score`, one whole prompt at a time."""
    for row, prompt in rows:
        logits = network(torch.tensor([prompt], device=network.device), logits_to_keep=1).logits[0, -1]
        yield [(row, logits[list(candidates)].float().softmax(-1).tolist())]


def _until_stop(row: Generated, tokens: list[int], stop: Stop, max_new_tokens: int) -> Generated:
    for token in tokens:
        if not row.take(token, stop, max_new_tokens):
            break
    return row
