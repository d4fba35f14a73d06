"""Stage classify: a causal LM completes the prompt for every skill, or scores the three labels after it."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

import polars as pl

from hardsoft.config.schema import Config, LocalEngineConfig, OpenAIJudgeConfig, load_config
from hardsoft.core.chat import Completion, answer_text, scored_completion
from hardsoft.core.errors import InputError
from hardsoft.core.files import read_csv, to_json, to_jsonl, write_outputs
from hardsoft.core.labels import Label
from hardsoft.core.progress import note
from hardsoft.core.runner import run
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.calibration import CONTENT_FREE, contextual_calibration
from hardsoft.prompting.prompts import read_prompt
from hardsoft.store.ask import Completed, complete
from hardsoft.store.rows import Store, default_path


def check_requirements(config: Config) -> None:
    """Raise InputError naming everything that the run lacks, the judge's key too: better now than after hours of GPU work."""
    missing = []
    if isinstance(config.engine, LocalEngineConfig):
        import torch

        if config.engine.device == "cuda" and not torch.cuda.is_available():
            missing.append("a CUDA GPU (engine.device is cuda)")
        if config.model.gated and not os.environ.get("HF_TOKEN"):
            missing.append(f"HF_TOKEN in the environment ({config.model.name} is gated)")
    if isinstance(config.judge, OpenAIJudgeConfig) and not os.environ.get("OPENAI_API_KEY"):
        missing.append(f"OPENAI_API_KEY in the environment (the judge is {config.judge.model})")
    if missing:
        raise InputError(f"missing: {'; '.join(missing)}")


def check_prompt(config: Config) -> None:
    """Raise InputError if the labels that `mode: label` scores would not be read as answers."""
    texts = [answer_text(config.prompt.prefill, label) for label in Label]
    if config.prompt.mode == "label" and [read_answer(text, "stop").label for text in texts] != list(Label):
        raise InputError(f'prompt.prefill {config.prompt.prefill!r}: in mode label it must be empty or end in "Answer:"')


def calibrate(completions: Sequence[Completion], content_free: Sequence[Completion], prefill: str) -> list[Completion]:
    """Scored completions with contextually calibrated probabilities, and the labels that follow from them.

    Completions without probabilities, which only an engine that cannot score gives, stay as they are.
    """
    leaning = [one.probabilities for one in content_free if one.probabilities]
    return [
        scored_completion(prefill, contextual_calibration(one.probabilities, leaning)) if one.probabilities else one
        for one in completions
    ]


def probabilities_csv(skills: Sequence[str], completions: Sequence[Completion]) -> str:
    """The labels' probabilities with 4 decimals, empty where there are none."""
    values = [one.probabilities or (None, None, None) for one in completions]
    columns = {label.lower(): [value[place] for value in values] for place, label in enumerate(Label)}
    return pl.DataFrame({"skill": skills, **columns}, schema_overrides=dict.fromkeys(columns, pl.Float64)).write_csv(
        float_precision=4
    )


def throughput(completed: Completed, skills: int) -> dict[str, Any]:
    """How much was computed now, and how fast; the rates are null if every row was stored.

    The first so many rows are skills; content-free inputs may follow them.
    """
    tokens = sum(completed.completions[row].tokens for row in completed.computed)
    seconds = completed.seconds if completed.computed else None
    return {
        "skills": skills,
        "stored": skills - sum(row < skills for row in completed.computed),
        "tokens": tokens,
        "seconds": seconds and round(seconds, 2),
        "skills_per_second": seconds and round(len(completed.computed) / seconds, 2),
        "tokens_per_second": seconds and round(tokens / seconds, 2),
        "peak_memory_mb": completed.peak_memory_mb and round(completed.peak_memory_mb),
    }


def main() -> None:
    description = "Complete the prompt for every skill."
    parser = argparse.ArgumentParser(prog="python -m hardsoft.stages.classify", description=description)
    parser.add_argument("--no-store", action="store_true", help="neither read nor write the row store: ask for every row")
    no_store = parser.parse_args().no_store
    config = load_config()
    check_prompt(config)
    skills = read_csv("data/interim/skills.csv")["skill"].to_list()
    calibrated = config.prompt.mode == "label" and config.prompt.contextual_calibration
    asked = [*skills, *CONTENT_FREE] if calibrated else skills

    store = Store(None if no_store else default_path())
    completed = complete(config, read_prompt(config.prompt), asked, store, lambda: check_requirements(config))

    completions = completed.completions[: len(skills)]
    if calibrated:
        completions = calibrate(completions, completed.completions[len(skills) :], config.prompt.prefill)
    failed = [one for one in completions if one.finish_reason == "error"]
    if failed:
        note(f"{len(failed)} of {len(skills)} rows failed ({failed[0].text}); `dvc repro -f classify` asks for these alone again")
    rows = [
        {"skill": skill, "completion": one.text, "finish_reason": one.finish_reason, "tokens": one.tokens}
        for skill, one in zip(skills, completions, strict=True)
    ]
    write_outputs(
        {
            "data/interim/completions.jsonl": to_jsonl(rows),
            "data/interim/probabilities.csv": probabilities_csv(skills, completions),
            "metrics/throughput.json": to_json(throughput(completed, len(skills))),
        }
    )


if __name__ == "__main__":
    run("classify", main)
