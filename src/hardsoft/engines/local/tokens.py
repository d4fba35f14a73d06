"""From chats to the token ids that a model reads, by its tokenizer's own chat template."""

import re
from collections.abc import Sequence
from functools import partial
from typing import cast

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hardsoft.core.chat import Chat, answer_text, opening
from hardsoft.core.errors import InputError
from hardsoft.core.labels import Label


def encode(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]) -> list[list[int]]:
    """Token ids of each chat, all of which begin the assistant's message, or none.

    Control tokens inside a message are encoded as ordinary text, so a skill named `<|eot_id|>` ends nothing: the tokenizer
    does so when asked to, message by message. Chats without any are encoded all at once, which is twice as fast.

    Raises:
        InputError: the tokenizer has no chat template, or the ids do not begin with its only BOS token.
    """
    if not chats:
        return []
    if tokenizer.chat_template is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; use an instruction-tuned model")
    control = re.compile("|".join(map(re.escape, tokenizer.get_added_vocab())) or "(?!)")
    suspect = [any(control.search(message["content"]) for message in chat) for chat in chats]
    harmless = iter(_encode(tokenizer, [chat for chat, bad in zip(chats, suspect, strict=True) if not bad], sanitize=False))
    sanitized = iter(_encode(tokenizer, [chat for chat, bad in zip(chats, suspect, strict=True) if bad], sanitize=True))
    prompts = [next(sanitized if bad else harmless) for bad in suspect]
    bos = tokenizer.bos_token_id
    for ids in prompts:
        if bos is not None and (ids.count(bos) > 1 or (bos in ids and ids[0] != bos)):
            raise InputError(
                f"{tokenizer.name_or_path}: the chat template gives {ids.count(bos)} BOS tokens; one at the start is right"
            )
    return prompts


def _encode(tokenizer: PreTrainedTokenizerBase, chats: list[Chat], sanitize: bool) -> list[list[int]]:
    if not chats:
        return []
    opened = bool(opening(chats[0]))
    render = partial(
        tokenizer.apply_chat_template, chats, add_generation_prompt=not opened, continue_final_message=opened, return_dict=False
    )
    if sanitize or not isinstance(tokenizer, PreTrainedTokenizerFast):
        return cast("list[list[int]]", render(sanitize_control_tokens=sanitize))
    # What render() would return, without the offsets and masks that it computes and drops, half of its time.
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    texts = cast("list[str]", render(tokenize=False))
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def label_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> list[int]:
    """First token of each label where it follows a chat: Hard, Soft, Unknown.

    Raises:
        InputError: two labels begin with the same token, or a label changes the tokens before it.
    """
    (prompt,) = encode(tokenizer, [chat])
    start = opening(chat)
    before = chat[:-1] if start else chat
    answered = [[*before, {"role": "assistant", "content": answer_text(start, label)}] for label in Label]
    continued = encode(tokenizer, answered)
    if any(ids[: len(prompt)] != prompt or len(ids) == len(prompt) for ids in continued):
        raise InputError(f"{tokenizer.name_or_path}: a label after {start!r} changes the tokens before it; change prompt.prefill")
    first = [ids[len(prompt)] for ids in continued]
    if len(set(first)) < len(first):
        raise InputError(f"{tokenizer.name_or_path}: two labels begin with the same token: use prompt.mode reason")
    return first
