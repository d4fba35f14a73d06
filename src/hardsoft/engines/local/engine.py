"""transformers in this process: greedy decoding over the prompts' shared prefix, or scores of the three labels."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import chain, islice
from typing import Any

import torch
from transformers import PreTrainedModel

from hardsoft.core.chat import Chat, Completion, Probabilities, opening, scored_completion
from hardsoft.core.errors import InputError
from hardsoft.core.labels import Label
from hardsoft.core.progress import note
from hardsoft.engines.base import OnResults
from hardsoft.engines.local.check import why_not
from hardsoft.engines.local.decode import decode
from hardsoft.engines.local.generated import Generated
from hardsoft.engines.local.loading import end_tokens
from hardsoft.engines.local.lookahead import Row
from hardsoft.engines.local.plain import decode_plainly, score_plainly
from hardsoft.engines.local.score import score
from hardsoft.engines.local.static import decode_statically
from hardsoft.engines.local.tokens import Encoder
from hardsoft.engines.local.transfer import mapped_ahead
from hardsoft.engines.memory import is_out_of_memory, peak_memory_mb
from hardsoft.engines.shares import WINDOW
from hardsoft.prompting.answers import answer_is_complete, is_before_answer
from hardsoft.prompting.spoken import open_reasoning


class LocalEngine:
    """A causal LM that answers chats by generating text or, with `scoring`, by the probabilities of the labels alone."""

    def __init__(
        self,
        network: PreTrainedModel,
        encoder: Encoder,
        batch_size: int,
        max_new_tokens: int,
        scoring: bool = False,
        window: int = WINDOW,
        reads_out: bool = False,
    ) -> None:
        """
        Args:
            batch_size: rows computed at once.
            max_new_tokens: the limit of a completion.
            window: chats that are encoded together, looked ahead over, and held in memory.
            reads_out: whether the network, for scoring, ends in a read-out (`readout.end_in`) instead of its words.
        """
        self._network, self._encoder = network, encoder
        tokenizer = encoder.tokenizer
        self._batch_size, self._max_new_tokens, self._scoring, self._window = batch_size, max_new_tokens, scoring, window
        self._on_a_gpu = network.device.type == "cuda"
        self._decode: Callable[..., Iterator[list[Generated]]] = decode_statically if self._on_a_gpu else decode
        self._score: Callable[..., Iterator[list[tuple[int, list[float]]]]] = score
        self._reads_out = reads_out
        self._stops = set(end_tokens(network, tokenizer))
        self._checked = self._refused = False
        self._unfit: list[tuple[int, Completion]] = []
        """Rows whose prompts are too long for the model."""
        self._openings: dict[str, Any] = getattr(network.config, "label_openings", {})
        temperatures = getattr(network.config, "label_temperature", {})
        self._temperatures = {"label": 1.0, "reason": 1.0, "opening": 1.0} | ({} if reads_out else dict(temperatures))
        self._word: Callable[[int], str] = cache(lambda token: str(tokenizer.decode([token], skip_special_tokens=True)))

    @property
    def peak_memory_mb(self) -> float:
        """Megabytes of GPU memory on a GPU, else of main memory."""
        return peak_memory_mb(str(self._network.device))

    @property
    def workers(self) -> list[str]:
        """The device of this process."""
        device = self._network.device
        return [torch.cuda.get_device_name(device) if device.type == "cuda" else device.type]

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Complete every chat.

        Rows that do not fit into memory together go on in half as large a batch, those after them in a whole one again; if that
        happens twice, batches stay halved.

        Raises:
            InputError: a chat that cannot be encoded, or not even one row fits into memory.
        """
        source = enumerate(chats)
        unfinished: dict[int, Chat] = {}

        def pull(new: bool) -> Iterator[tuple[int, Chat]]:
            yield from list(unfinished.items())  # of an attempt that failed
            for row, chat in source if new else ():
                unfinished[row] = chat
                yield row, chat

        size = self._batch_size
        while True:
            whole = size == self._batch_size
            try:
                for results in self._results(pull(new=whole), size):
                    on_results(results)
                    for row, _ in results:
                        del unfinished[row]
                if whole:
                    return
                size = self._batch_size
            except NotImplementedError as error:
                if self._decode is decode_plainly:
                    raise
                self._go_plainly(str(error))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise InputError("out of memory with a single row; take a smaller model or a 4-bit quantization") from None
                size //= 2
                note(f"out of memory; going on with {size} rows at once (engine.batch_size)")
                if whole and self._refused:
                    self._batch_size = size
                self._refused = self._refused or whole

    def _results(self, chats: Iterator[tuple[int, Chat]], batch_size: int) -> Iterator[list[tuple[int, Completion]]]:
        first = next(chats, None)
        if first is None:
            return
        if not self._checked:
            self._check(first[1])
        with closing(self._encoded(chain([first], chats))) as rows:
            yield from (self._scored if self._scoring else self._written)(rows, first[1], batch_size)
        if self._unfit:
            yield self._unfit

    def _scored(self, rows: Iterator[Row], example: Chat, batch_size: int) -> Iterator[list[tuple[int, Completion]]]:
        start, temperature = opening(example), self._temperatures["label"]
        candidates = range(len(Label)) if self._reads_out else self._encoder.label_ids(example)
        for scored in self._score(self._network, rows, batch_size, candidates, self._window):
            yield [(row, scored_completion(start, tempered(given, temperature))) for row, given in scored]

    def _written(self, rows: Iterator[Row], example: Chat, batch_size: int) -> Iterator[list[tuple[int, Completion]]]:
        start, tokenizer = opening(example), self._encoder.tokenizer

        @cache
        def begun(end_of_prompt: tuple[int, ...]) -> str:
            return start or open_reasoning(str(tokenizer.decode(list(end_of_prompt))))

        def text(row: Generated, end: int | None = None) -> str:
            # Decoded after the prompt's last token, since some tokenizers drop the blank before a text's first word.
            last = row.prompt[-1]
            decoded = str(tokenizer.decode([last, *row.tokens[:end]], skip_special_tokens=True))
            return begun(tuple(row.prompt[-8:])) + decoded[len(self._word(last)) :]

        def stop(row: Generated) -> bool:
            newest = row.tokens[-1]
            return newest in self._stops or ("\n" in self._word(newest) and answer_is_complete(text(row)))

        kinds, answers = self._opening_ids(), self._answer_ids(example)
        lead = self._openings.get("after", "")

        def probabilities(row: Generated) -> Probabilities | None:
            for place, logits in row.watched if kinds else ():
                if text(row, place).endswith(lead):
                    return tempered(softmax(logits[: len(kinds)]), self._temperatures["opening"])
            for place, logits in reversed(row.watched) if answers else ():
                if is_before_answer(text(row, place)):
                    return tempered(softmax(logits[len(kinds) :]), self._temperatures["reason"])
            return None

        def completion(row: Generated) -> Completion:
            return Completion(text(row), "stop" if row.stopped else "length", len(row.tokens), probabilities(row))

        for finished in self._decode(
            self._network, rows, batch_size, self._max_new_tokens, stop, window=self._window, watch=kinds + answers
        ):
            yield [(row.row, completion(row)) for row in finished]

    def _check(self, chat: Chat) -> None:
        """Go plainly if the loop does not compute what plain forward passes do."""
        self._checked = True
        (prompt,) = self._encoder.encode([chat])
        reason = why_not(self._network, prompt)
        if reason and self._decode is not decode_plainly:
            self._go_plainly(reason)

    def _go_plainly(self, reason: str) -> None:
        note(f"{type(self._network).__name__}: {reason}: this architecture gets plain generation, which is slower", once=True)
        self._decode, self._score = decode_plainly, score_plainly

    def _encoded(self, chats: Iterator[tuple[int, Chat]]) -> Generator[Row]:
        """The chats' token ids, encoded a window at a time; a row that does not fit the model is set aside."""
        positions = getattr(self._network.config.get_text_config(), "max_position_embeddings", None) or math.inf
        self._unfit = []
        windows = iter(lambda: list(islice(chats, self._window)), [])
        for window in (mapped_ahead if self._on_a_gpu else map)(self._encode, windows):
            for row, prompt in window:
                length = len(prompt) + (0 if self._scoring else self._max_new_tokens)
                if length <= positions:
                    yield row, prompt
                else:
                    reason = f"prompt and completion may take {length} tokens, and the model has {positions} positions"
                    self._unfit.append((row, Completion(reason, "error", 0)))

    def _encode(self, window: list[tuple[int, Chat]]) -> list[Row]:
        prompts = self._encoder.encode([chat for _, chat in window])
        return [(row, prompt) for (row, _), prompt in zip(window, prompts, strict=True)]

    def _opening_ids(self) -> list[int]:
        """First token of each label's word where Step 1 decides between them; none where the model has no such place.

        Behind it the answer is nearly certain, so that its own probability says little.
        """
        words = self._openings.get("words", [])
        return [self._encoder.tokenizer.encode(word, add_special_tokens=False)[0] for word in words]

    def _answer_ids(self, chat: Chat) -> list[int]:
        """First token of each label after `Answer:` in the assistant's message; none where labels share it."""
        before = chat[:-1] if opening(chat) else chat
        try:
            return self._encoder.label_ids([*before, {"role": "assistant", "content": "Answer:"}])
        except InputError:
            return []


def softmax(logits: list[float]) -> Probabilities:
    """Probabilities of the three labels from their logits."""
    hard, soft, unknown = torch.tensor(logits).softmax(0).tolist()
    return hard, soft, unknown


def tempered(probabilities: Sequence[float], temperature: float) -> Probabilities:
    """Probabilities whose logits are divided by a temperature (Guo et al. 2017, arXiv 1706.04599).

    A model's config may give it as `label_temperature: {label: T, reason: T, opening: T}`: for labels scored alone, for the
    answer after reasoning, and for the place in Step 1 that its `label_openings: {after: text, words: [three]}` name.
    """
    if temperature == 1:
        hard, soft, unknown = probabilities
    else:
        powered = [probability ** (1 / temperature) for probability in probabilities]
        hard, soft, unknown = (one / sum(powered) for one in powered)
    return hard, soft, unknown
