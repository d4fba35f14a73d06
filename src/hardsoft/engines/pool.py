"""One engine in several processes: on a CPU one process per core with one thread each beats threads; on GPUs one per device.

Knows nothing of what the engines in them do.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from hardsoft.core.chat import Chat, Completion
from hardsoft.core.errors import InputError
from hardsoft.core.progress import PROCESS
from hardsoft.engines.base import Engine, OnResults
from hardsoft.engines.shares import WINDOW

MakeEngine = Callable[[], Engine]
Results = list[tuple[int, Completion]]


@dataclass(frozen=True)
class Begin:
    """Sent to a process: a set of chats is to be had."""


@dataclass(frozen=True)
class More:
    """Sent by a process: it has room for more chats; an empty list of them says that there are none."""


@dataclass(frozen=True)
class Ready:
    """Sent by a process: it has loaded what it needs."""

    workers: list[str]
    """Its devices."""


@dataclass(frozen=True)
class Done:
    """Sent by a process: it has answered all chats of a set."""

    peak_memory_mb: float


@dataclass(frozen=True)
class Failed:
    """Sent by a process: it cannot go on."""

    error: InputError


class Pool:
    """Engines in processes of their own, until the end of a `with` block. This process need not import what they import."""

    def __init__(self, makers: Sequence[MakeEngine], share: int, threads: int | None) -> None:
        """
        Args:
            makers: one for each process; they are pickled.
            share: chats that a process is given at once, whenever it has room.
            threads: of each process; None leaves that to its libraries.

        Raises:
            InputError: a process cannot make its engine.
        """
        self.peak_memory_mb = 0.0
        self.workers: list[str] = []
        self._share = share
        context = multiprocessing.get_context("spawn")
        self._processes, self._connections = [], []
        for number, make in enumerate(makers):
            connection, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, make, threads, number), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(connection)
        try:
            for number in range(len(makers)):
                ready = self._receive(number)
                assert isinstance(ready, Ready)
                self.workers += ready.workers
        except InputError:
            self._end()
            raise

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Hand the chats out to processes as they have room, and pass on what these answer.

        Raises:
            InputError: one that a process raised, or a process died.
        """
        waiting = _like_beside_like(enumerate(chats))
        working = {connection: number for number, connection in enumerate(self._connections)}
        rows: list[list[int]] = [[] for _ in working]
        memory = [0.0] * len(rows)
        for number in range(len(rows)):
            self._send(number, Begin())
        while working:
            for connection in [ready for ready in wait(list(working)) if isinstance(ready, Connection)]:
                number = working[connection]
                match self._receive(number):
                    case More():
                        share = list(islice(waiting, self._share))
                        rows[number] += [row for row, _ in share]
                        self._send(number, [chat for _, chat in share])
                    case Done(peak_memory_mb):
                        memory[number] = peak_memory_mb
                        del working[connection]
                    case results:
                        on_results([(rows[number][place], completion) for place, completion in results])
        self.peak_memory_mb = sum(memory)

    def _send(self, number: int, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # reading from it tells more
            self._connections[number].send(message)

    def _receive(self, number: int) -> Any:
        """The next message of a process, which is `Results` if it is none of the above.

        Raises:
            InputError: it died, or says that it failed.
        """
        try:
            message = self._connections[number].recv()
        except (EOFError, ConnectionResetError):
            self._processes[number].join()
            code = self._processes[number].exitcode
            raise InputError(f"process {number} died (exit code {code}); if memory is short, lower engine.processes") from None
        if isinstance(message, Failed):
            raise message.error
        return message

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.terminate()
            process.join()


def _work(connection: Connection, make: MakeEngine, threads: int | None, number: int) -> None:
    """A process of the pool: complete what is sent, until the other end closes, be it that its process was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    os.environ[PROCESS] = str(number)
    if threads is not None:
        os.environ |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        import torch

        torch.set_num_threads(threads)  # where it was imported before the variable was set
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            engine = make()
            connection.send(Ready(engine.workers))
            while True:
                assert connection.recv() == Begin()
                engine.complete(_chats(connection), connection.send)
                connection.send(Done(engine.peak_memory_mb))
        except InputError as error:
            connection.send(Failed(error))


def _chats(connection: Connection) -> Iterator[Chat]:
    """Chats from the other end, asked for as the engine takes them."""
    while True:
        connection.send(More())
        share: list[Chat] = connection.recv()
        if not share:
            return
        yield from share


def _like_beside_like(rows: Iterator[tuple[int, Chat]]) -> Iterator[tuple[int, Chat]]:
    """Rows a window at a time, the longest first: a process computes its share padded to the longest of it."""
    while window := list(islice(rows, WINDOW)):
        yield from sorted(window, key=lambda row: -sum(len(message["content"]) for message in row[1]))
