"""A decoder in steps of one shape, which a GPU runs without the host.

For devices that are faster than the host that drives them: every slot takes part in every step, whether a row lives in it or
not, own keys are read up to a bucket's end, rows enter in groups of a few sizes, and all of it is captured once for each shape
and replayed. The stop rule works on the host one step behind, while the device takes the next step: a row that stops wastes
that one step. What cannot be captured runs as it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from hardsoft.core.errors import first_line
from hardsoft.core.progress import note
from hardsoft.engines.local.cache import Slots
from hardsoft.engines.local.loop import Read, Token
from hardsoft.engines.local.prefixed import PrefixedModel, padded
from hardsoft.engines.local.rows import Generated, Job
from hardsoft.engines.local.transfer import ToHost, to_device
from hardsoft.engines.memory import is_out_of_memory

OWN_BUCKET = 32
"""Own keys are read up to a multiple of this."""
PROMPT_BUCKET = 8
"""What follows the prefix is padded to a multiple of this."""

Result = TypeVar("Result")
Chosen = tuple[Tensor, Tensor]
"""Tokens [rows], and the logits [rows, watched] of the watched ones."""


class Graphs:
    """CUDA graphs: work that the host describes once and a GPU repeats, so that it need not wait for a thousand small launches.

    A device has one, for all that is captured on it, one after another; on a CPU nothing is captured.
    """

    def __init__(self, device: torch.device) -> None:
        self.on = device.type == "cuda"
        """Whether to capture what is not captured yet."""
        self._pool: Any = None

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result] | None:
        """What repeats a function without arguments over tensors that stay where they are; None if it cannot be captured.

        The function must not wait for what the device computes, nor hand numbers up to it. The first that does is told in a
        note, and nothing is captured from then on.
        """
        try:
            return self._captured(function)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.on = False
            note(f"CUDA graphs: a step cannot be captured ({first_line(error)}); it runs uncaptured, which is slower", once=True)
            return None

    def _captured(self, function: Callable[[], Result]) -> Callable[[], Result]:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                result = function()
        except BaseException:
            torch.cuda.set_stream(stream)  # which a capture that fails at its end does not
            torch.cuda.synchronize()
            raise

        def replay() -> Result:
            graph.replay()
            return result

        return replay


class Replayed(Generic[Result]):
    """A function that is captured when it is called again: libraries allocate at a first call, which no graph may do."""

    def __init__(self, function: Callable[[], Result], graphs: Graphs) -> None:
        self._function, self._graphs = function, graphs
        self._called = False
        self._replay: Callable[[], Result] | None = None

    def __call__(self) -> Result:
        if not self._replay and self._called and self._graphs.on:
            self._replay = self._graphs.capture(self._function)
        self._called = True
        return (self._replay or self._function)()


class Graphed:
    """See `loop.Decoder`; each launch returns before the device has computed it."""

    behind = 1

    def __init__(self, model: PrefixedModel, job: Job, graphs: Graphs | None = None) -> None:
        """
        Args:
            graphs: of the model's device; by default its own.
        """
        self._model, self._count, self._max_new_tokens = model, job.slots, job.max_new_tokens
        self._watch = torch.tensor(list(job.watch), dtype=torch.long, device=model.device)
        self._graphs = graphs or Graphs(model.device)
        self._slots = model.no_slots()
        self._held = [0] * (job.slots + 1)
        """Own tokens in each slot; the last one is spare, for the rows that fill up a group."""
        self._steps: dict[int, Replayed[Chosen]] = {}
        self._groups: dict[tuple[int, int], Group] = {}

    def enter(self, rows: Mapping[int, Generated]) -> Read:
        """Prefill rows into slots, and choose the first token of each."""
        own = [row.prompt[-self._model.own_tokens(row.prompt) :] for row in rows.values()]
        longest = max(map(len, own))
        self._make_room(longest + self._max_new_tokens + 1)
        size = min(self._count, 1 << (len(own) - 1).bit_length())
        shape = size, rounded(longest, PROMPT_BUCKET)
        if shape not in self._groups:
            self._groups[shape] = Group(self._model, self._slots, shape, self._watch, self._graphs)
        spare = size - len(own)
        chosen = self._groups[shape]([*rows, *[self._count] * spare], own + [[0]] * spare)
        for slot, tokens in zip(rows, own, strict=True):
            self._held[slot] = len(tokens)
        return partial(read, list(rows), range(len(own)), *map(ToHost, chosen))

    def step(self, rows: Mapping[int, Generated]) -> Read:
        """Let every slot take a step; rows are those that live."""
        seen = min(rounded(max(self._held[slot] for slot in rows) + 1, OWN_BUCKET), self._slots.width)
        if seen not in self._steps:
            self._steps[seen] = Replayed(partial(self._take_step, seen), self._graphs)
        chosen = self._steps[seen]()
        for slot in rows:
            self._held[slot] += 1
        return partial(read, list(rows), list(rows), *map(ToHost, chosen))

    def _take_step(self, seen: int) -> Chosen:
        last = self._slots.last
        chosen = choose(self._model.step(self._slots, last.new_empty(len(last), 0), seen)[:, 0], self._watch)
        self._slots.advance_by_one(chosen[0])
        return chosen

    def _make_room(self, width: int) -> None:
        if width > self._slots.width:
            self._slots.make_room(self._count + 1, rounded(width, OWN_BUCKET))
            self._steps.clear()  # they know where keys and values were
            self._groups.clear()


class Group:
    """Prefills groups of one shape into slots."""

    def __init__(self, model: PrefixedModel, slots: Slots, shape: tuple[int, int], watch: Tensor, graphs: Graphs) -> None:
        """
        Args:
            shape: rows, and own tokens of each.
        """
        self._width = shape[1]
        self._ids = torch.zeros(shape, dtype=torch.long, device=model.device)
        self._lengths, self._places = (torch.zeros(shape[0], dtype=torch.long, device=model.device) for _ in range(2))

        def prefill() -> Chosen:
            logits, filled = model.prefill_padded(self._ids, self._lengths)
            chosen = choose(logits, watch)
            slots.enter(self._places, filled, self._lengths, chosen[0])
            return chosen

        self._prefill = Replayed(prefill, graphs)

    def __call__(self, slots: list[int], rows: list[list[int]]) -> Chosen:
        ids, lengths = padded(rows, self._width)
        for values, buffer in ((ids, self._ids), (lengths, self._lengths), (torch.tensor(slots), self._places)):
            buffer.copy_(to_device(values, buffer.device))
        return self._prefill()


def read(slots: Sequence[int], places: Sequence[int], tokens: ToHost, logits: ToHost) -> Iterator[Token]:
    """Each slot's token and watched logits, by its place in what was chosen; waits for the device."""
    chosen, watched = tokens.wait().tolist(), logits.wait()
    for slot, place in zip(slots, places, strict=True):
        yield slot, chosen[place], watched[place].tolist


def choose(logits: Tensor, watch: Tensor) -> Chosen:
    """The likeliest token of each row, and the logits of the watched ones."""
    return logits.argmax(-1), logits.index_select(1, watch).float()


def rounded(number: int, bucket: int) -> int:
    """The next multiple of a bucket's size."""
    return -(-number // bucket) * bucket
