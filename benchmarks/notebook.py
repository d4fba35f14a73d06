"""The notebook study's way to label: whole prompts, left padding, input order, plain `generate`, the last word as label."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from hardsoft.core.chat import Chat
from hardsoft.core.labels import Label

MAX_NEW_TOKENS = 150
BATCH_SIZE = 64


class ForcedLengths(LogitsProcessor):
    """Each row of a batch ends at a given number of tokens: EOS is impossible before and certain then."""

    def __init__(self, prompt_length: int, lengths: Sequence[int], stop: int) -> None:
        self._prompt_length, self._lengths, self._stop = prompt_length, torch.tensor(lengths), stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ends = self._lengths.to(scores.device) == input_ids.shape[1] - self._prompt_length + 1
        scores[:, self._stop] = torch.where(ends, torch.inf, -torch.inf)
        return scores


@torch.inference_mode()
def complete(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Chat],
    lengths: Callable[[Chat], int] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Iterator[str]:
    """Completions in input order, each what the model wrote and no more; with `lengths`, of forced lengths in tokens."""
    stop = tokenizer.eos_token_id
    tokenizer.padding_side = "left"
    for start in range(0, len(chats), BATCH_SIZE):
        batch = list(chats[start : start + BATCH_SIZE])
        opened = batch[0][-1]["role"] == "assistant"
        inputs: Any = tokenizer.apply_chat_template(
            batch,
            add_generation_prompt=not opened,
            continue_final_message=opened,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        inputs = inputs.to(network.device)
        width = inputs["input_ids"].shape[1]
        forced = LogitsProcessorList([ForcedLengths(width, [lengths(chat) for chat in batch], stop)] if lengths else [])
        output = network.generate(  # type: ignore[operator]
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=stop, pad_token_id=tokenizer.pad_token_id
            ),
            logits_processor=forced,
        )
        yield from tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)


def last_word(text: str) -> Label | None:
    """The label that the last word of a completion is, if it is one."""
    words = text.split()
    word = words[-1].strip(".!*\"'").capitalize() if words else ""
    return Label(word) if word in list(Label) else None
