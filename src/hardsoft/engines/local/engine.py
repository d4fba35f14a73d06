"""transformers in this process: chats encoded a window at a time, computed by the loop, or plainly where that does not fit."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Protocol, TypeVar

import torch
from transformers import PreTrainedModel

from hardsoft.core.chat import Chat, Completion, opening
from hardsoft.core.errors import InputError
from hardsoft.core.labels import Label
from hardsoft.core.progress import note
from hardsoft.engines.base import OnResults
from hardsoft.engines.local.check import why_not
from hardsoft.engines.local.drafts import Drafts
from hardsoft.engines.local.eager import Eager
from hardsoft.engines.local.graphed import Graphed, Graphs
from hardsoft.engines.local.loading import end_tokens
from hardsoft.engines.local.loop import MakeDecoder, decode
from hardsoft.engines.local.plain import Plain
from hardsoft.engines.local.rows import Generated, Job, Row
from hardsoft.engines.local.score import score
from hardsoft.engines.local.tokens import Encoder
from hardsoft.engines.local.wording import Hints, Wording, scored
from hardsoft.engines.memory import is_out_of_memory, peak_memory_mb
from hardsoft.engines.shares import WINDOW

Item = TypeVar("Item")
Result = TypeVar("Result")


class Way(Protocol):
    """How rows are computed: `Loop`, or `plain.Plain`."""

    def write(self, rows: Iterable[Row], job: Job) -> Iterator[list[Generated]]:
        """Complete prompts greedily, yielding rows as they finish; see `loop.decode`."""

    def score(self, rows: Iterable[Row], candidates: Sequence[int], job: Job) -> Iterator[list[tuple[int, list[float]]]]:
        """Rows with the probabilities of the candidate next tokens; see `score.score`."""


class Loop:
    """The decode loop of a network, on a GPU in CUDA graphs."""

    def __init__(self, network: PreTrainedModel, graphs: bool) -> None:
        """
        Args:
            graphs: whether to capture steps, where there is a GPU; in 8 bits each of them waits for the device, so none is.
        """
        self._network = network
        captures = graphs and network.device.type == "cuda" and not getattr(network, "is_loaded_in_8bit", False)
        self._graphs = Graphs(network.device) if captures else None

    def write(self, rows: Iterable[Row], job: Job) -> Iterator[list[Generated]]:
        """See `Way`."""
        decoder: MakeDecoder = partial(Graphed, graphs=self._graphs) if self._graphs else partial(Eager, drafts=Drafts())
        return decode(self._network, rows, job, decoder)

    def score(self, rows: Iterable[Row], candidates: Sequence[int], job: Job) -> Iterator[list[tuple[int, list[float]]]]:
        """See `Way`."""
        return score(self._network, rows, candidates, job.slots, job.window)


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
        graphs: bool = True,
    ) -> None:
        """
        Args:
            batch_size: rows computed at once.
            max_new_tokens: the limit of a completion.
            window: chats that are encoded together, looked ahead over, and held in memory.
            reads_out: whether the network, for scoring, ends in a read-out (`readout.end_in`) instead of its words.
            graphs: whether a GPU's steps are captured in CUDA graphs.
        """
        self._network, self._encoder = network, encoder
        self._batch_size, self._max_new_tokens, self._scoring, self._window = batch_size, max_new_tokens, scoring, window
        self._reads_out = reads_out
        self._hints = Hints() if reads_out else Hints.of(vars(network.config))
        self._way: Way = Loop(network, graphs)
        self._checked = self._refused = False

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

        def pull(go_on: bool) -> Iterator[tuple[int, Chat]]:
            yield from list(unfinished.items())  # of an attempt that failed
            for row, chat in source if go_on else ():
                unfinished[row] = chat
                yield row, chat

        size = self._batch_size
        while True:
            retries = size < self._batch_size
            try:
                for results in self._results(pull(go_on=not retries), size):
                    on_results(results)
                    for row, _ in results:
                        del unfinished[row]
                if not retries:
                    return
                size = self._batch_size
            except NotImplementedError as error:
                if isinstance(self._way, Plain):
                    raise
                self._go_plainly(str(error))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                size = self._halved(size, retries)

    def _halved(self, size: int, retries: bool) -> int:
        """Half of a batch that did not fit into memory."""
        if size == 1:
            raise InputError("out of memory with a single row; take a smaller model or a 4-bit quantization") from None
        size //= 2
        note(f"out of memory; going on with {size} rows at once (engine.batch_size)")
        if self._refused and not retries:
            self._batch_size = size
        self._refused = self._refused or not retries
        return size

    def _results(self, chats: Iterator[tuple[int, Chat]], batch_size: int) -> Iterator[list[tuple[int, Completion]]]:
        first = next(chats, None)
        if first is None:
            return
        if not self._checked:
            self._check(first[1])
        unfit: list[tuple[int, Completion]] = []
        with closing(self._encoded(chain([first], chats), unfit)) as rows:
            yield from (self._scored if self._scoring else self._written)(rows, first[1], batch_size)
        if unfit:
            yield unfit

    def _scored(self, rows: Iterator[Row], example: Chat, batch_size: int) -> Iterator[list[tuple[int, Completion]]]:
        start, job = opening(example), Job(batch_size, 1, lambda _: True, window=self._window)
        candidates = range(len(Label)) if self._reads_out else self._encoder.label_ids(example)
        for results in self._way.score(rows, candidates, job):
            yield [(row, scored(start, probabilities, self._hints)) for row, probabilities in results]

    def _written(self, rows: Iterator[Row], example: Chat, batch_size: int) -> Iterator[list[tuple[int, Completion]]]:
        stops = set(end_tokens(self._network, self._encoder.tokenizer))
        wording = Wording(self._encoder, example, stops, self._hints)
        job = Job(batch_size, self._max_new_tokens, wording.stops, wording.watch, self._window)
        for finished in self._way.write(rows, job):
            yield [(row.row, wording.completion(row)) for row in finished]

    def _check(self, chat: Chat) -> None:
        """Go plainly if the loop does not compute what plain forward passes do."""
        self._checked = True
        (prompt,) = self._encoder.encode([chat])
        reason = why_not(self._network, prompt)
        if reason and not isinstance(self._way, Plain):
            self._go_plainly(reason)

    def _go_plainly(self, reason: str) -> None:
        note(f"{type(self._network).__name__}: {reason}: this architecture gets plain generation, which is slower", once=True)
        self._way = Plain(self._network)

    def _encoded(self, chats: Iterator[tuple[int, Chat]], unfit: list[tuple[int, Completion]]) -> Generator[Row]:
        """The chats' token ids, encoded a window at a time; a row that does not fit the model is put among the unfit."""
        positions = getattr(self._network.config.get_text_config(), "max_position_embeddings", None) or math.inf
        windows = iter(lambda: list(islice(chats, self._window)), [])
        for window in (mapped_ahead if self._network.device.type == "cuda" else map)(self._encode, windows):
            for row, prompt in window:
                length = len(prompt) + (0 if self._scoring else self._max_new_tokens)
                if length <= positions:
                    yield row, prompt
                else:
                    reason = f"prompt and completion may take {length} tokens, and the model has {positions} positions"
                    unfit.append((row, Completion(reason, "error", 0)))

    def _encode(self, window: list[tuple[int, Chat]]) -> list[Row]:
        prompts = self._encoder.encode([chat for _, chat in window])
        return [(row, prompt) for (row, _), prompt in zip(window, prompts, strict=True)]


def mapped_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """A function's results, each computed in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        newest: Future[Result] | None = None
        for item in items:
            before, newest = newest, thread.submit(function, item)
            if before:
                yield before.result()
        if newest:
            yield newest.result()
