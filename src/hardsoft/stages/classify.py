"""Stage classify: a causal LM completes the prompt for every skill, or scores the three labels after it."""

import argparse
import csv
from collections.abc import Sequence
from typing import Any

from hardsoft.config.engines import ServerEngineConfig
from hardsoft.config.load import load_config
from hardsoft.config.schema import Config
from hardsoft.core import paths
from hardsoft.core.chat import Completion, Probabilities, answer_text, scored_completion
from hardsoft.core.errors import InputError, check_error_share
from hardsoft.core.files import to_json, to_jsonl, writing
from hardsoft.core.labels import Label
from hardsoft.core.progress import note
from hardsoft.core.runner import run
from hardsoft.engines.stored import Completions, complete
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.contextual import CONTENT_FREE, contextual_calibration
from hardsoft.prompting.prompts import read_prompt
from hardsoft.stages import tables
from hardsoft.store.rows import Store, default_path

OUTPUTS = (paths.COMPLETIONS, paths.PROBABILITIES, paths.THROUGHPUT_METRICS)


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


def throughput(completed: Completions, skills: int) -> dict[str, Any]:
    """How much was computed now, and how fast; the rates are null if every row was stored.

    The first so many rows are skills; content-free inputs may follow them.
    """
    tally = completed.tally
    seconds = tally.seconds if tally.rows else None
    return {
        "skills": skills,
        "stored": skills - sum(row < skills for row in tally.rows),
        "tokens": tally.tokens,
        "seconds": seconds and round(seconds, 2),
        "skills_per_second": seconds and round(len(tally.rows) / seconds, 2),
        "tokens_per_second": seconds and round(tally.tokens / seconds, 2),
        "peak_memory_mb": tally.peak_memory_mb and round(tally.peak_memory_mb),
        "workers": len(tally.workers) or None,
        "device": ", ".join(sorted(set(tally.workers))) or None,
        "batch_size": completed.machine.rows_at_once if tally.rows else None,
    }


def check_errors(errors: Sequence[Completion], skills: int, config: Config, stored: bool) -> None:
    """Say what failed for good.

    Args:
        errors: in the order of the rows.
        stored: whether the other rows are in the row store.

    Raises:
        InputError: more than may.
    """
    reasons = [error.text for error in errors]
    kept = f"the other {skills - len(reasons)} are stored, and `dvc repro` goes on with the rest" if stored else "none is stored"
    check_error_share(reasons, skills, config.engine.max_error_share, "engine.max_error_share", kept)
    if reasons:
        note(f"{len(reasons)} of {skills} rows failed ({reasons[0]}); `dvc repro -f classify` asks for these alone again")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.stages.classify", description=__doc__)
    parser.add_argument("--no-store", action="store_true", help="neither read nor write the row store: ask for every row")
    no_store = parser.parse_args().no_store
    config = load_config()
    check_prompt(config)
    skills = tables.skills()["skill"].to_list()
    calibrated = config.prompt.mode == "label" and config.prompt.contextual_calibration
    asked = [*skills, *CONTENT_FREE] if calibrated else skills

    completed = complete(config, read_prompt(config.prompt), asked, Store(None if no_store else default_path()))
    content_free = completed.read(range(len(skills), len(asked)))
    leaning = [completion.probabilities for completion in content_free if completion.probabilities]
    errors = completed.tally.errors
    check_errors([errors[row] for row in sorted(errors) if row < len(skills)], len(skills), config, stored=not no_store)

    with writing(*OUTPUTS) as (completions, probabilities, metrics):
        table = csv.writer(probabilities, lineterminator="\n")
        table.writerow(["skill", *(label.lower() for label in Label)])
        for skill, found in zip(skills, completed.read(range(len(skills))), strict=True):
            completion = calibrate(found, leaning, config.prompt.prefill)
            row = {
                "skill": skill,
                "completion": completion.text,
                "finish_reason": completion.finish_reason,
                "tokens": completion.tokens,
            }
            completions.write(to_jsonl([row]))
            values = [f"{value:.4f}" for value in completion.probabilities] if completion.probabilities else ["", "", ""]
            table.writerow([skill, *values])
        metrics.write(to_json(throughput(completed, len(skills))))


if __name__ == "__main__":
    run("classify", main)
