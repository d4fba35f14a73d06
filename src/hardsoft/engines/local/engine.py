"""transformers in this process: greedy decoding over the prompts' shared prefix, or scores of the three labels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hardsoft.core.chat import Chat, Completion, Probabilities, opening, scored_completion
from hardsoft.core.errors import InputError
from hardsoft.core.progress import note
from hardsoft.engines.base import OnResults
from hardsoft.engines.local.decode import Generated, decode
from hardsoft.engines.local.lookahead import WINDOW, Row
from hardsoft.engines.local.plain import decode_plainly, score_plainly
from hardsoft.engines.local.score import score
from hardsoft.engines.local.tokens import encode, label_ids
from hardsoft.engines.memory import peak_memory_mb
from hardsoft.prompting.answers import answer_is_complete, is_before_answer, open_reasoning


class LocalEngine:
    """A causal LM that answers chats by generating text or, with `scoring`, by the probabilities of the labels alone."""

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        max_new_tokens: int,
        scoring: bool = False,
        window: int = WINDOW,
    ) -> None:
        """
        Args:
            batch_size: rows computed at once.
            max_new_tokens: the limit of a completion.
            window: chats that are encoded together, looked ahead over, and held in memory.
        """
        self._network, self._tokenizer = network, tokenizer
        self._batch_size, self._max_new_tokens, self._scoring, self._window = batch_size, max_new_tokens, scoring, window
        self._decode: Callable[..., Iterator[list[Generated]]] = decode
        self._score: Callable[..., Iterator[list[tuple[int, list[float]]]]] = score
        stops = network.generation_config.eos_token_id
        self._stops = {stops} if isinstance(stops, int) else set(stops or [])
        temperatures = getattr(network.config, "label_temperature", {})
        self._temperature = float(temperatures.get("label" if scoring else "reason", 1.0))
        self._word: Callable[[int], str] = cache(lambda token: str(tokenizer.decode([token], skip_special_tokens=True)))

    @property
    def peak_memory_mb(self) -> float:
        """Megabytes of GPU memory on a GPU, else of main memory."""
        return peak_memory_mb(str(self._network.device))

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Complete every chat. A batch that does not fit into memory is halved, and so are those after it.

        Raises:
            InputError: a chat that cannot be encoded, or not even one row fits into memory.
        """
        source = enumerate(chats)
        unfinished: dict[int, Chat] = {}

        def pull() -> Iterator[tuple[int, Chat]]:
            yield from list(unfinished.items())  # of an attempt that failed
            for row, chat in source:
                unfinished[row] = chat
                yield row, chat

        while True:
            try:
                for results in self._results(pull()):
                    on_results(results)
                    for row, _ in results:
                        del unfinished[row]
                return
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

    def _results(self, chats: Iterator[tuple[int, Chat]]) -> Iterator[list[tuple[int, Completion]]]:
        first = next(chats, None)
        if first is None:
            return
        start, rows = opening(first[1]), self._encoded(chain([first], chats))
        if self._scoring:
            candidates = label_ids(self._tokenizer, first[1])
            for scored in self._score(self._network, rows, self._batch_size, candidates, self._window):
                yield [(row, scored_completion(start, tempered(given, self._temperature))) for row, given in scored]
            return

        @cache
        def begun(end_of_prompt: tuple[int, ...]) -> str:
            return start or open_reasoning(str(self._tokenizer.decode(list(end_of_prompt))))

        def text(row: Generated, end: int | None = None) -> str:
            # Decoded after the prompt's last token, since some tokenizers drop the blank before a text's first word.
            last = row.prompt[-1]
            decoded = str(self._tokenizer.decode([last, *row.tokens[:end]], skip_special_tokens=True))
            return begun(tuple(row.prompt[-8:])) + decoded[len(self._word(last)) :]

        def stop(row: Generated) -> bool:
            newest = row.tokens[-1]
            return newest in self._stops or ("\n" in self._word(newest) and answer_is_complete(text(row)))

        def completion(row: Generated) -> Completion:
            probabilities = next(
                (
                    tempered(softmax(logits), self._temperature)
                    for place, logits in reversed(row.watched)
                    if is_before_answer(text(row, place))
                ),
                None,
            )
            return Completion(text(row), "stop" if row.stopped else "length", len(row.tokens), probabilities)

        watch = self._answer_ids(first[1])
        for finished in self._decode(
            self._network, rows, self._batch_size, self._max_new_tokens, stop, window=self._window, watch=watch
        ):
            yield [(row.row, completion(row)) for row in finished]

    def _encoded(self, chats: Iterator[tuple[int, Chat]]) -> Iterator[Row]:
        """The chats' token ids, encoded a window at a time."""
        while window := list(islice(chats, self._window)):
            prompts = encode(self._tokenizer, [chat for _, chat in window])
            yield from zip((row for row, _ in window), prompts, strict=True)

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
