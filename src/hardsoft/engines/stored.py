"""Completions of skills: stored, else computed by the configured engine and stored as they arrive; for a stage and for a tool."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from hardsoft.config.machine import Machine, find_machine, guess_machine
from hardsoft.config.preflight import check_classify
from hardsoft.config.schema import Config
from hardsoft.core.chat import Completion
from hardsoft.core.errors import errors_allowed
from hardsoft.core.progress import Progress
from hardsoft.engines.base import Engine
from hardsoft.engines.local.saved import check_configured
from hardsoft.engines.start import open_engine
from hardsoft.prompting.prompts import Prompt
from hardsoft.store.key import completion_setting
from hardsoft.store.lookup import StoredRows
from hardsoft.store.rows import Store, Value, canonical

LOST = Completion("the row store lost it while the stage ran", "error", 0)


@dataclass
class Tally:
    """What it took to compute the rows that were not stored."""

    rows: Sequence[int] = ()
    """Those rows."""
    errors: dict[int, Completion] = field(default_factory=dict)
    """Rows that failed for good: they are not stored, so that the next run asks again."""
    tokens: int = 0
    """Generated now."""
    seconds: float = 0.0
    """Of computing; loading is excluded, but for Ray's workers, which load when rows have come."""
    peak_memory_mb: float | None = None
    """Megabytes of the engine; None if there was nothing to compute."""
    workers: list[str] = field(default_factory=list)
    """The device's name of each process, server or worker that computed it, at most at the same time."""


@dataclass(frozen=True)
class Completions:
    """Completions of skills."""

    stored: StoredRows
    tally: Tally
    machine: Machine
    """What `auto` meant; a guess if there was nothing to compute."""

    def read(self, rows: range) -> Iterator[Completion]:
        """The completions of rows, from the store one after another."""
        for row, value in zip(rows, self.stored.read(rows), strict=True):
            yield self.tally.errors.get(row, LOST) if value is None else _from_value(value)


def complete(config: Config, prompt: Prompt, skills: Sequence[str], store: Store) -> Completions:
    """Complete the prompt for every skill: from the store as far as it has them, else by the configured engine.

    Raises:
        InputError: the checkpoint is in another form than configured, or the engine cannot start or go on; what was stored by
            then stays.
    """
    check_configured(config)
    machine, tally = guess_machine(config), Tally()
    stored = StoredRows(store, completion_setting(config, machine), _questions(prompt, skills))
    if stored.missing and (found := find_machine(config)) != machine:
        machine = found
        stored = StoredRows(store, completion_setting(config, machine), _questions(prompt, skills))
    with stored.to_ask() as rows:
        if rows:
            check_classify(config)
            with open_engine(config, machine, len(rows), errors_allowed(config.engine.max_error_share, len(skills))) as engine:
                _compute(engine, prompt, skills, stored, rows, tally)
    return Completions(stored, tally, machine)


def _compute(
    engine: Engine, prompt: Prompt, skills: Sequence[str], stored: StoredRows, rows: Sequence[int], tally: Tally
) -> None:
    """Let an engine complete rows; each is stored as it arrives, and the tally kept."""
    tally.rows = rows
    with Progress("classify", len(rows), "skills") as progress:

        def on_results(results: list[tuple[int, Completion]]) -> None:
            done = [(rows[place], completion) for place, completion in results]
            stored.keep([(row, asdict(completion)) for row, completion in done if completion.finish_reason != "error"])
            tally.errors |= {row: completion for row, completion in done if completion.finish_reason == "error"}
            tally.tokens += sum(completion.tokens for _, completion in done)
            tally.workers = max(tally.workers, engine.workers, key=len)
            progress.advance(len(results), len(engine.workers))

        begin = time.perf_counter()
        engine.complete((prompt.messages(skills[row]) for row in rows), on_results)
        tally.seconds, tally.peak_memory_mb = time.perf_counter() - begin, engine.peak_memory_mb


def _questions(prompt: Prompt, skills: Sequence[str]) -> Iterator[str]:
    return (canonical(prompt.messages(skill)) for skill in skills)


def _from_value(value: Value) -> Completion:
    probabilities = value["probabilities"]
    return Completion(value["text"], value["finish_reason"], value["tokens"], tuple(probabilities) if probabilities else None)
