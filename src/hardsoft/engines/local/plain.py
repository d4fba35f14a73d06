"""Plain generation and scoring, for architectures whose attention cannot be replaced: like the loop, slower."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from hardsoft.engines.local.lookahead import Lookahead
from hardsoft.engines.local.rows import Generated, Job, Row


class Plain:
    """See `engine.Way`; nothing is watched."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network

    @torch.inference_mode()
    def write(self, rows: Iterable[Row], job: Job) -> Iterator[list[Generated]]:
        """Complete prompts with `generate`, over left-padded batches."""
        stops = self._network.generation_config.eos_token_id
        pad = stops[0] if isinstance(stops, list) else (stops or 0)
        generation = GenerationConfig(max_new_tokens=job.max_new_tokens, do_sample=False, eos_token_id=stops, pad_token_id=pad)
        ahead = Lookahead(rows, job.window)
        while ahead.renew():
            while taken := ahead.take(job.slots):
                width = max(len(prompt) for _, prompt in taken)
                missing = [width - len(prompt) for _, prompt in taken]
                ids = torch.tensor([[pad] * gap + prompt for gap, (_, prompt) in zip(missing, taken, strict=True)])
                mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in missing])
                output = self._network.generate(  # type: ignore[operator]
                    ids.to(self._network.device), attention_mask=mask.to(self._network.device), generation_config=generation
                )
                yield [
                    _until_stop(Generated(row, prompt), tokens, job)
                    for (row, prompt), tokens in zip(taken, output[:, width:].tolist(), strict=True)
                ]

    @torch.inference_mode()
    def score(self, rows: Iterable[Row], candidates: Sequence[int], job: Job) -> Iterator[list[tuple[int, list[float]]]]:
        """Score candidates one whole prompt at a time."""
        for row, prompt in rows:
            logits = self._network(torch.tensor([prompt], device=self._network.device), logits_to_keep=1).logits[0, -1]
            yield [(row, logits[list(candidates)].float().softmax(-1).tolist())]


def _until_stop(row: Generated, tokens: list[int], job: Job) -> Generated:
    for token in tokens:
        if not job.give(row, token):
            break
    return row
