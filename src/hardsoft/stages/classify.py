"""Stage classify: a causal LM completes the prompt for every skill, or scores the three labels after it."""

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hardsoft.config.device import find_device, guess_device, rows_at_once
from hardsoft.config.preflight import check_classify
from hardsoft.config.schema import Config, ModelEngineConfig, ServerEngineConfig, load_config
from hardsoft.core.chat import Completion, Probabilities, answer_text, scored_completion
from hardsoft.core.errors import InputError, check_error_share
from hardsoft.core.files import to_json, to_jsonl, writing
from hardsoft.core.labels import Label
from hardsoft.core.progress import Progress, note
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv
from hardsoft.engines.start import open_engine
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.contextual import CONTENT_FREE, contextual_calibration
from hardsoft.prompting.prompts import Prompt, read_prompt
from hardsoft.store.ask import Answers, OnValues, ask
from hardsoft.store.key import completion_setting
from hardsoft.store.rows import Store, canonical, default_path

OUTPUTS = ("data/interim/completions.jsonl", "data/interim/probabilities.csv", "metrics/throughput.json")
LOST = Completion("the row store lost it while the stage ran", "error", 0)


@dataclass(frozen=True)
class Completions:
    """Completions of skills, and what it took to compute those that were not stored."""

    answers: Answers
    errors: dict[int, Completion]
    """Rows that failed for good: they are not stored, so that the next run asks again."""
    tokens: int
    """Generated now."""
    seconds: float
    """Of computing; loading is excluded, but for Ray's workers, which load when rows have come."""
    peak_memory_mb: float | None
    """Megabytes of the engine; None if there was nothing to compute."""
    device: str | None
    """What computed it, `cpu` or `cuda`; a server is `elsewhere`."""
    workers: list[str]
    """The device's name of each process, server or worker that computed it, at most at the same time."""

    def read(self, rows: range) -> Iterator[Completion]:
        """The completions of rows, from the store one after another."""
        for row, value in zip(rows, self.answers.read(rows), strict=True):
            yield self.errors.get(row, LOST) if value is None else _from_value(value)


def complete(config: Config, prompt: Prompt, skills: Sequence[str], store: Store) -> Completions:
    """Complete the prompt for every skill: from the store as far as it has them, else by the configured engine.

    Raises:
        InputError: the engine cannot start or go on; what was stored by then stays.
    """
    errors: dict[int, Completion] = {}
    tokens, seconds, memory, device = 0, 0.0, None, None
    workers: list[str] = []

    def answer(rows: Sequence[int], keep: OnValues) -> None:
        nonlocal seconds, memory, device
        check_classify(config)
        device = find_device(config.engine)
        with open_engine(config, device, len(rows)) as engine, Progress("classify", len(rows), "skills") as progress:

            def on_results(results: list[tuple[int, Completion]]) -> None:
                nonlocal tokens, workers
                keep([(rows[place], asdict(one)) for place, one in results if one.finish_reason != "error"])
                errors.update({rows[place]: one for place, one in results if one.finish_reason == "error"})
                tokens += sum(one.tokens for _, one in results)
                workers = max(workers, engine.workers, key=len)
                progress.advance(len(results), len(engine.workers))

            begin = time.perf_counter()
            engine.complete((prompt.messages(skills[row]) for row in rows), on_results)
            seconds, memory = time.perf_counter() - begin, engine.peak_memory_mb

    answers = ask(
        store,
        completion_setting(config, guess_device(config.engine)),
        len(skills),
        lambda row: canonical(prompt.messages(skills[row])),
        answer,
        settle=lambda: completion_setting(config, find_device(config.engine)),
    )
    return Completions(answers, errors, tokens, seconds, memory, device, workers)


def _from_value(value: dict[str, Any]) -> Completion:
    probabilities = value["probabilities"]
    return Completion(value["text"], value["finish_reason"], value["tokens"], tuple(probabilities) if probabilities else None)


def check_prompt(config: Config) -> None:
    """Raise InputError if the labels that `mode: label` scores would not be read as answers, or reasons are asked for in vain."""
    if isinstance(config.engine, ServerEngineConfig) and config.engine.endpoint == "decisions" and config.prompt.mode != "label":
        raise InputError("engine.endpoint: decisions come without reasons; set prompt=label_only")
    texts = [answer_text(config.prompt.prefill, label) for label in Label]
    if config.prompt.mode == "label" and [read_answer(text, "stop").label for text in texts] != list(Label):
        raise InputError(f'prompt.prefill {config.prompt.prefill!r}: in mode label it must be empty or end in "Answer:"')


def calibrate(completion: Completion, leaning: Sequence[Probabilities], prefill: str) -> Completion:
    """A scored completion with contextually calibrated probabilities, and the label that follows from them.

    One without probabilities, which only an engine that cannot score gives, stays as it is.

    Args:
        leaning: the probabilities for inputs without content.
    """
    if not completion.probabilities or not leaning:
        return completion
    return scored_completion(prefill, contextual_calibration(completion.probabilities, leaning))


def throughput(config: Config, completed: Completions, skills: int) -> dict[str, Any]:
    """How much was computed now, and how fast; the rates are null if every row was stored.

    The first so many rows are skills; content-free inputs may follow them.
    """
    asked = completed.answers.asked
    seconds = completed.seconds if asked else None
    device = completed.device
    local = device if isinstance(config.engine, ModelEngineConfig) else None
    return {
        "skills": skills,
        "stored": skills - sum(row < skills for row in asked),
        "tokens": completed.tokens,
        "seconds": seconds and round(seconds, 2),
        "skills_per_second": seconds and round(len(asked) / seconds, 2),
        "tokens_per_second": seconds and round(completed.tokens / seconds, 2),
        "peak_memory_mb": completed.peak_memory_mb and round(completed.peak_memory_mb),
        "workers": len(completed.workers) or None,
        "device": ", ".join(sorted(set(completed.workers))) or None,
        "batch_size": local and rows_at_once(config, local),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.stages.classify", description=__doc__)
    parser.add_argument("--no-store", action="store_true", help="neither read nor write the row store: ask for every row")
    no_store = parser.parse_args().no_store
    config = load_config()
    check_prompt(config)
    skills = read_csv("data/interim/skills.csv")["skill"].to_list()
    calibrated = config.prompt.mode == "label" and config.prompt.contextual_calibration
    asked = [*skills, *CONTENT_FREE] if calibrated else skills

    store = Store(None if no_store else default_path())
    completed = complete(config, read_prompt(config.prompt), asked, store)
    content_free = completed.read(range(len(skills), len(asked)))
    leaning = [one.probabilities for one in content_free if one.probabilities]

    failed = [completed.errors[row].text for row in sorted(completed.errors) if row < len(skills)]
    kept = f"the other {len(skills) - len(failed)} are stored, and `dvc repro` goes on with the rest"
    kept = "none is stored" if no_store else kept
    check_error_share(failed, len(skills), config.engine.max_error_share, "engine.max_error_share", kept)
    if failed:
        note(f"{len(failed)} of {len(skills)} rows failed ({failed[0]}); `dvc repro -f classify` asks for these alone again")
    with writing(*OUTPUTS) as (completions, probabilities, metrics):
        table = csv.writer(probabilities, lineterminator="\n")
        table.writerow(["skill", *(label.lower() for label in Label)])
        for skill, one in zip(skills, completed.read(range(len(skills))), strict=True):
            one = calibrate(one, leaning, config.prompt.prefill)
            row = {"skill": skill, "completion": one.text, "finish_reason": one.finish_reason, "tokens": one.tokens}
            completions.write(to_jsonl([row]))
            values = [f"{value:.4f}" for value in one.probabilities] if one.probabilities else ["", "", ""]
            table.writerow([skill, *values])
        metrics.write(to_json(throughput(config, completed, len(skills))))


if __name__ == "__main__":
    run("classify", main)
