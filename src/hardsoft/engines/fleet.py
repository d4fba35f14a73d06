"""Several servers of one model as one engine: a question goes to whichever has room, and a server that dies is left out.

Each server works in a thread of its own (`_work`): it takes a question, holds it, and says `Answered`; or it says `Ended`, at the
end of the questions or by a fault, with what it still held. This thread hears all of them. An error is asked once more, of
another server; what a dead server held goes to the others; what is to be asked again is a new set of questions.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from queue import Queue

from hardsoft.config.machine import ELSEWHERE
from hardsoft.core.chat import Chat, Completion
from hardsoft.core.errors import InputError
from hardsoft.core.progress import note
from hardsoft.engines.base import Engine, OnResults
from hardsoft.engines.memory import peak_memory_mb

Question = tuple[int, Chat]
"""A row and its chat."""


@dataclass(frozen=True)
class Answered:
    """A server has completed a chat."""

    name: str
    question: Question
    completion: Completion


@dataclass(frozen=True)
class Failed:
    """A question that failed at a server, and is to be asked once more."""

    name: str
    """Of the server; empty for one that only was in its hands."""
    question: Question


@dataclass(frozen=True)
class Ended:
    """A server has nothing more to do, or can do no more."""

    name: str
    fault: BaseException | None
    held: list[Question]
    """Questions that it took and did not answer."""


class Shared:
    """Questions that several threads take from."""

    def __init__(self, questions: Iterator[Question], again: Sequence[Failed]) -> None:
        """
        Args:
            questions: asked by nobody yet.
            again: those that failed before.
        """
        self._questions, self._again, self._lock = questions, list(again), threading.Lock()

    def take(self, name: str) -> Question | None:
        """The next question for a server: one that failed goes to another."""
        with self._lock:
            for failed in self._again:
                if failed.name != name:
                    self._again.remove(failed)
                    return failed.question
            return next(self._questions, None)

    def left(self) -> list[Failed]:
        """Those that nobody could take."""
        return self._again


class Fleet:
    """Engines that answer alike, each in a thread of its own."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        """
        Args:
            engines: by the name that messages call them.
        """
        self._living = dict(engines)
        self._faults: list[str] = []

    @property
    def peak_memory_mb(self) -> float:
        """Megabytes of this process; the servers' own memory is not seen from here."""
        return peak_memory_mb()

    @property
    def workers(self) -> list[str]:
        """The servers that answer."""
        return [ELSEWHERE] * len(self._living)

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Complete every chat. A row that fails at one server is asked once more, of another one; then it is an error.

        Raises:
            InputError: no server is left.
        """
        shared, failed = Shared(enumerate(chats), []), set[int]()
        while again := self._ask(shared, on_results, failed):
            alone = len(self._living) == 1
            shared = Shared(iter(()), [Failed("", question.question) for question in again] if alone else again)

    def _ask(self, waiting: Shared, on_results: OnResults, failed: set[int]) -> list[Failed]:
        """Ask what is waiting of all servers; returns what has to be asked again."""
        events: Queue[Answered | Ended] = Queue()
        for name, engine in self._living.items():
            threading.Thread(target=_work, args=(name, engine, waiting, events), daemon=True).start()
        running, again = len(self._living), list[Failed]()
        while running:
            event = events.get()
            if isinstance(event, Answered):
                row = event.question[0]
                if event.completion.finish_reason == "error" and row not in failed:
                    failed.add(row)
                    again.append(Failed(event.name, event.question))
                else:
                    on_results([(row, event.completion)])
                continue
            running -= 1
            again += [Failed("", question) for question in event.held]
            if isinstance(event.fault, InputError):
                self._faults.append(str(event.fault))
                del self._living[event.name]
                if not self._living:
                    raise InputError("; ".join(self._faults))
                note(f"{event.fault}; it is left out, and its rows go to the others")
            elif event.fault:
                raise event.fault
        return again + waiting.left()


def _work(name: str, engine: Engine, waiting: Shared, events: "Queue[Answered | Ended]") -> None:
    """Let a server answer as long as there is something waiting."""
    held: dict[int, Question] = {}

    def pull() -> Iterator[Chat]:
        for place in count():
            if (question := waiting.take(name)) is None:
                return
            held[place] = question
            yield question[1]

    def put(results: list[tuple[int, Completion]]) -> None:
        for place, completion in results:
            events.put(Answered(name, held.pop(place), completion))

    fault: BaseException | None = None
    try:
        engine.complete(pull(), put)
    except BaseException as error:
        fault = error
    events.put(Ended(name, fault, list(held.values())))
