"""Plain generation and scoring, for architectures whose attention `attention` cannot replace: the same functions, slower."""

from collections.abc import Callable, Iterator, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from hardsoft.engines.local.decode import Generated


@torch.inference_mode()
def decode_plainly(
    network: PreTrainedModel,
    prompts: Sequence[list[int]],
    batch_size: int,
    max_new_tokens: int,
    stop: Callable[[int, list[int]], bool],
    watch: Sequence[int] = (),
) -> Iterator[list[Generated]]:
    """Like `decode.decode`, with `generate` over left-padded batches; nothing is watched."""
    stops = network.generation_config.eos_token_id
    pad = stops[0] if isinstance(stops, list) else (stops or 0)
    generation = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=stops, pad_token_id=pad)
    longest_first = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
    for start in range(0, len(longest_first), batch_size):
        rows = longest_first[start : start + batch_size]
        width = len(prompts[rows[0]])
        missing = [width - len(prompts[row]) for row in rows]
        ids = torch.tensor([[pad] * gap + prompts[row] for gap, row in zip(missing, rows, strict=True)])
        mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in missing])
        output = network.generate(  # type: ignore[operator]
            ids.to(network.device), attention_mask=mask.to(network.device), generation_config=generation
        )
        yield [_until_stop(row, tokens, stop) for row, tokens in zip(rows, output[:, width:].tolist(), strict=True)]


@torch.inference_mode()
def score_plainly(
    network: PreTrainedModel, prompts: Sequence[list[int]], batch_size: int, candidates: Sequence[int]
) -> Iterator[list[tuple[int, list[float]]]]:
    """Like `score.score`, one whole prompt at a time."""
    for row, prompt in enumerate(prompts):
        logits = network(torch.tensor([prompt], device=network.device), logits_to_keep=1).logits[0, -1]
        yield [(row, logits[list(candidates)].float().softmax(-1).tolist())]


def _until_stop(row: int, tokens: list[int], stop: Callable[[int, list[int]], bool]) -> Generated:
    end = next((place for place in range(1, len(tokens) + 1) if stop(row, tokens[:place])), None)
    return Generated(row, tokens[:end], stopped=end is not None)
