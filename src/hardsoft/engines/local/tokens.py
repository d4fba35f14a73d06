"""From chats to the token ids that a model reads, by its tokenizer's own chat template."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hardsoft.core.chat import Chat, answer_text, opening
from hardsoft.core.errors import InputError
from hardsoft.core.labels import Label
from hardsoft.core.progress import note


class Encoder:
    """A tokenizer with the arguments of its chat template.

    A template that takes no system message, or drops it, gets its text at the head of the user's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None) -> None:
        """
        Raises:
            InputError: the tokenizer has no chat template.
        """
        self.tokenizer, self._arguments = tokenizer, dict(arguments or {})
        self._folds: bool | None = None
        if tokenizer.chat_template is None:
            raise self._error("the tokenizer has no chat template; use an instruction-tuned model")
        if "strftime_now" in str(tokenizer.chat_template) and "date_string" not in self._arguments:
            note(
                f"{tokenizer.name_or_path}: its chat template writes today's date into every prompt, so that completions of "
                "another day may differ; pin it by model.chat_template.date_string",
                once=True,
            )

    def encode(self, chats: Sequence[Chat]) -> list[list[int]]:
        """Token ids of each chat, all of which begin the assistant's message, or none.

        Control tokens inside a message are encoded as ordinary text, so a skill named `<|eot_id|>` ends nothing: the tokenizer
        does so when asked to, message by message. Chats without any are encoded all at once, which is twice as fast.

        Raises:
            InputError: the template cannot render the chats, or writes the BOS token twice.
        """
        if not chats:
            return []
        if self._folds is None:
            self._folds = self._must_fold(chats[0])
        if self._folds:
            chats = [_folded(chat) for chat in chats]
        control = re.compile("|".join(map(re.escape, self.tokenizer.get_added_vocab())) or "(?!)")
        suspect = [any(control.search(message["content"]) for message in chat) for chat in chats]
        harmless = iter(self._encode([chat for chat, bad in zip(chats, suspect, strict=True) if not bad], sanitize=False))
        sanitized = iter(self._encode([chat for chat, bad in zip(chats, suspect, strict=True) if bad], sanitize=True))
        prompts = [next(sanitized if bad else harmless) for bad in suspect]
        bos = self.tokenizer.bos_token_id
        if bos is not None and any(ids[:2] == [bos, bos] for ids in prompts):
            raise self._error("the chat template gives 2 BOS tokens; one at the start is right")
        return prompts

    def label_ids(self, chat: Chat) -> list[int]:
        """First token of each label where it follows a chat: Hard, Soft, Unknown.

        Raises:
            InputError: two labels begin with the same token, or a label changes the tokens before it.
        """
        (prompt,) = self.encode([chat])
        start = opening(chat)
        before = chat[:-1] if start else chat
        answered = [[*before, {"role": "assistant", "content": answer_text(start, label)}] for label in Label]
        continued = self.encode(answered)
        if any(ids[: len(prompt)] != prompt or len(ids) == len(prompt) for ids in continued):
            raise self._error(f"a label after {start!r} changes the tokens before it; change prompt.prefill")
        first = [ids[len(prompt)] for ids in continued]
        if len(set(first)) < len(first):
            raise self._error("two labels begin with the same token: use prompt.mode reason")
        return first

    def _must_fold(self, chat: Chat) -> bool:
        """Whether the template cannot say what a system message says; a note tells so."""
        if chat[0]["role"] != "system" or not chat[0]["content"].strip():
            return False
        try:
            (text,) = self._render([chat], tokenize=False)
        except TemplateError as error:
            reason = f"refuses a system message ({error})"
        else:
            if chat[0]["content"].strip() in text:
                return False
            reason = "leaves the system message out"
        note(f"{self.tokenizer.name_or_path}: the chat template {reason}; its text goes into the user's message", once=True)
        return True

    def _encode(self, chats: list[Chat], sanitize: bool) -> list[list[int]]:
        if not chats:
            return []
        try:
            if sanitize or not isinstance(self.tokenizer, PreTrainedTokenizerFast):
                return cast("list[list[int]]", self._render(chats, sanitize_control_tokens=sanitize))
            texts = self._render(chats, tokenize=False)
        except TemplateError as error:
            raise self._error(f"the chat template cannot render the prompt: {error}") from None
        except ValueError as error:
            raise self._error(f"the chat template cannot go on from prompt.prefill {opening(chats[0])!r}: {error}") from None
        question = next(message["content"] for message in reversed(chats[0]) if message["role"] == "user")
        if question.strip() not in texts[0]:
            raise self._error("the chat template leaves the question out")
        # What rendering to tokens would return, without the offsets and masks that it computes and drops, half of its time.
        backend = self.tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _render(self, chats: list[Chat], **options: Any) -> list[Any]:
        opened = bool(opening(chats[0]))
        render = partial(self.tokenizer.apply_chat_template, chats, return_dict=False, **self._arguments)
        return cast("list[Any]", render(add_generation_prompt=not opened, continue_final_message=opened, **options))

    def _error(self, problem: str) -> InputError:
        return InputError(f"model.name {self.tokenizer.name_or_path}: {problem}")


def _folded(chat: Chat) -> Chat:
    """A chat whose system message is the head of the user's."""
    if chat[0]["role"] != "system":
        return chat
    system, user, *rest = chat
    return [{"role": "user", "content": f"{system['content']}\n\n{user['content']}".strip()}, *rest]
