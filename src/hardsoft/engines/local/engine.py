"""transformers in this process: greedy decoding over the prompts' shared prefix, or scores of the three labels."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hardsoft.core.chat import Chat, Completion, Probabilities, opening, scored_completion
from hardsoft.core.errors import InputError
from hardsoft.core.progress import note
from hardsoft.engines.base import OnResults
from hardsoft.engines.local.decode import Generated, decode
from hardsoft.engines.local.plain import decode_plainly, score_plainly
from hardsoft.engines.local.score import score
from hardsoft.engines.local.tokens import encode, label_ids
from hardsoft.engines.memory import peak_memory_mb
from hardsoft.prompting.answers import answer_is_complete, is_before_answer


class LocalEngine:
    """A causal LM that answers chats by generating text or, with `scoring`, by the probabilities of the labels alone."""

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        max_new_tokens: int,
        scoring: bool = False,
    ) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._batch_size, self._max_new_tokens, self._scoring = batch_size, max_new_tokens, scoring
        self._decode: Callable[..., Iterator[list[Generated]]] = decode
        self._score: Callable[..., Iterator[list[tuple[int, list[float]]]]] = score
        stops = network.generation_config.eos_token_id
        self._stops = {stops} if isinstance(stops, int) else set(stops or [])
        temperatures = getattr(network.config, "label_temperature", {})
        self._temperature = float(temperatures.get("label" if scoring else "reason", 1.0))
        self._word: Callable[[int], str] = cache(lambda token: str(tokenizer.decode([token], skip_special_tokens=True)))

    @property
    def peak_memory_mb(self) -> float:
        return peak_memory_mb(str(self._network.device))

    def complete(self, chats: Sequence[Chat], on_results: OnResults) -> None:
        """Complete every chat. A batch that does not fit into memory is halved, and so are those after it.

        Raises:
            InputError: a chat that cannot be encoded, or not even one row fits into memory.
        """
        prompts = encode(self._tokenizer, chats)
        left = list(range(len(prompts)))
        while left:
            done = set()
            try:
                for results in self._results([chats[row] for row in left], [prompts[row] for row in left]):
                    on_results([(left[place], completion) for place, completion in results])
                    done |= {left[place] for place, _ in results}
            except NotImplementedError as error:
                if self._decode is decode_plainly:
                    raise
                note(f"{error}: this architecture gets plain generation, which is slower")
                self._decode, self._score = decode_plainly, score_plainly
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if self._batch_size == 1:
                    raise InputError("out of memory with a single row; take a smaller model or a 4-bit quantization") from None
                self._batch_size //= 2
                note(f"out of memory; going on with {self._batch_size} rows at once (engine.batch_size)")
            left = [row for row in left if row not in done]

    def _results(self, chats: list[Chat], prompts: list[list[int]]) -> Iterator[list[tuple[int, Completion]]]:
        start = opening(chats[0])
        if self._scoring:
            for scored in self._score(self._network, prompts, self._batch_size, label_ids(self._tokenizer, chats[0])):
                yield [(row, scored_completion(start, tempered(given, self._temperature))) for row, given in scored]
            return

        def text(row: int, tokens: list[int]) -> str:
            # Decoded after the prompt's last token, since some tokenizers drop the blank before a text's first word.
            last = prompts[row][-1]
            return start + str(self._tokenizer.decode([last, *tokens], skip_special_tokens=True))[len(self._word(last)) :]

        def stop(row: int, tokens: list[int]) -> bool:
            return tokens[-1] in self._stops or ("\n" in self._word(tokens[-1]) and answer_is_complete(text(row, tokens)))

        def completion(row: Generated) -> Completion:
            probabilities = next(
                (
                    tempered(softmax(logits), self._temperature)
                    for place, logits in reversed(row.watched)
                    if is_before_answer(text(row.row, row.tokens[:place]))
                ),
                None,
            )
            return Completion(text(row.row, row.tokens), "stop" if row.stopped else "length", len(row.tokens), probabilities)

        watch = self._answer_ids(chats[0])
        for finished in self._decode(self._network, prompts, self._batch_size, self._max_new_tokens, stop, watch):
            yield [(row.row, completion(row)) for row in finished]

    def _answer_ids(self, chat: Chat) -> list[int]:
        """First token of each label after `Answer:` in the assistant's message; none where labels share it."""
        before = chat[:-1] if opening(chat) else chat
        try:
            return label_ids(self._tokenizer, [*before, {"role": "assistant", "content": "Answer:"}])
        except InputError:
            return []


def softmax(logits: list[float]) -> Probabilities:
    """Probabilities of the three labels from their logits."""
    hard, soft, unknown = torch.tensor(logits).softmax(0).tolist()
    return hard, soft, unknown


def tempered(probabilities: Sequence[float], temperature: float) -> Probabilities:
    """Probabilities whose logits are divided by a temperature (Guo et al. 2017, arXiv 1706.04599).

    A model's config may give it as `label_temperature: {label: T, reason: T}`, for labels scored alone and after reasoning.
    """
    if temperature == 1:
        hard, soft, unknown = probabilities
    else:
        powered = [probability ** (1 / temperature) for probability in probabilities]
        hard, soft, unknown = (one / sum(powered) for one in powered)
    return hard, soft, unknown


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
