"""Completions about skills: from the row store as far as it has them, else from an engine, stored as they arrive."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hardsoft.config.schema import Config
from hardsoft.core.chat import Chat, Completion
from hardsoft.core.progress import Progress
from hardsoft.engines.base import Engine
from hardsoft.engines.start import open_engine
from hardsoft.prompting.prompts import Prompt
from hardsoft.store.key import setting_of
from hardsoft.store.rows import Setting, Store, canonical

CHUNK = 8192
"""Prompts held at once: memory does not grow with the number of skills, but for their completions."""


@dataclass(frozen=True)
class Completed:
    """A completion for each skill, and what it took to compute those that were not stored."""

    completions: list[Completion]
    computed: list[int]
    """Positions of the completions that an engine made now."""
    seconds: float
    """Of computing; loading the model is not counted."""
    peak_memory_mb: float | None
    """Of the engine; None if there was nothing to compute."""


def complete(
    config: Config, prompt: Prompt, skills: Sequence[str], store: Store, before_asking: Callable[[], None] = lambda: None
) -> Completed:
    """Complete the prompt for every skill. Errors are not stored, so that the next run asks again.

    Args:
        before_asking: called when a row must be computed, before the engine is started.

    Raises:
        InputError: the engine cannot start or go on; what was stored by then stays.
    """
    setting = setting_of(config)
    found: dict[int, Completion] = {}
    for start in range(0, len(skills), CHUNK):
        questions = [canonical(prompt.messages(skill)) for skill in skills[start : start + CHUNK]]
        found |= {start + position: _from_value(value) for position, value in store.get(setting, questions).items()}
    missing = [position for position in range(len(skills)) if position not in found]
    if not missing:
        return Completed([found[position] for position in range(len(skills))], [], 0.0, None)

    before_asking()
    seconds = 0.0
    with open_engine(config, len(missing)) as engine, Progress("classify", len(missing), "skills") as progress:
        for start in range(0, len(missing), CHUNK):
            positions = missing[start : start + CHUNK]
            begin = time.perf_counter()
            new = _ask(engine, [prompt.messages(skills[position]) for position in positions], store, setting, progress)
            seconds += time.perf_counter() - begin
            found |= {positions[place]: completion for place, completion in new.items()}
        memory = engine.peak_memory_mb
    return Completed([found[position] for position in range(len(skills))], missing, seconds, memory)


def _ask(engine: Engine, chats: list[Chat], store: Store, setting: Setting, progress: Progress) -> dict[int, Completion]:
    completions: dict[int, Completion] = {}

    def keep(results: list[tuple[int, Completion]]) -> None:
        good = [(canonical(chats[row]), asdict(one)) for row, one in results if one.finish_reason != "error"]
        store.put(setting, good)
        completions.update(results)
        progress.advance(len(results))

    engine.complete(chats, keep)
    return completions


def _from_value(value: dict[str, Any]) -> Completion:
    probabilities = value["probabilities"]
    return Completion(value["text"], value["finish_reason"], value["tokens"], tuple(probabilities) if probabilities else None)
