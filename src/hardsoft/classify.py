"""Stage classify: a causal LM completes the prompt for every skill."""

import os
import time

import polars as pl

from hardsoft.config import Config, OpenAIJudgeConfig, load_config
from hardsoft.progress import Progress
from hardsoft.stage import InputError, read_csv, run, to_json, to_jsonl, write_outputs


def check_requirements(config: Config) -> None:
    """Raise InputError naming everything that the run lacks, the judge's key too: better now than after hours of GPU work."""
    import torch

    missing = []
    if config.engine.device == "cuda" and not torch.cuda.is_available():
        missing.append("a CUDA GPU (engine.device is cuda)")
    if config.model.gated and not os.environ.get("HF_TOKEN"):
        missing.append(f"HF_TOKEN in the environment ({config.model.name} is gated)")
    if isinstance(config.judge, OpenAIJudgeConfig) and not os.environ.get("OPENAI_API_KEY"):
        missing.append(f"OPENAI_API_KEY in the environment (the judge is {config.judge.model})")
    if missing:
        raise InputError(f"missing: {'; '.join(missing)}")


def main() -> None:
    config = load_config()
    check_requirements(config)
    skills = read_csv("data/interim/skills.csv")["skill"].to_list()
    if config.model.local:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by the libraries when they are imported
    from hardsoft.engines import Completion
    from hardsoft.engines.local import LocalEngine, load, peak_memory_mb, pick_device
    from hardsoft.prompts import encode, read_prompt

    prompt = read_prompt(config.prompt)
    device = pick_device(config.engine.device)
    network, tokenizer = load(config.model, config.quantization, device)
    engine = LocalEngine(network, tokenizer, config.engine.batch_size, config.prompt.max_new_tokens)
    prompts = [encode(tokenizer, prompt, skill) for skill in skills]

    completions: dict[int, Completion] = {}
    start = time.perf_counter()
    with Progress("classify", len(skills), "skills") as progress:

        def keep(row: int, completion: Completion) -> None:
            completions[row] = completion
            progress.advance()

        engine.complete(prompts, keep)
    seconds = time.perf_counter() - start

    rows = [
        {
            "skill": skill,
            "completion": prompt.prefill + completions[row].text,
            "finish_reason": completions[row].finish_reason,
            "tokens": completions[row].tokens,
        }
        for row, skill in enumerate(skills)
    ]
    tokens = sum(completion.tokens for completion in completions.values())
    throughput = {
        "skills": len(skills),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "skills_per_second": round(len(skills) / seconds, 2),
        "tokens_per_second": round(tokens / seconds, 2),
        "peak_memory_mb": round(peak_memory_mb(device)),
    }
    no_probabilities = pl.DataFrame({"skill": skills}).with_columns(hard=None, soft=None, unknown=None)
    write_outputs(
        {
            "data/interim/completions.jsonl": to_jsonl(rows),
            "data/interim/probabilities.csv": no_probabilities.write_csv(),
            "metrics/throughput.json": to_json(throughput),
        }
    )


if __name__ == "__main__":
    run(main)
