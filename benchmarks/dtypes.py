"""What bfloat16 instead of float32 gains in speed, and how many labels it changes, for reasoning and for label scoring.

Methods alternate within each round, so that a machine's moods meet all of them; a ratio is the median over the rounds.
"""

import argparse
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import polars as pl

from benchmarks.classify import compare, configuration, median_ratio
from benchmarks.flips import completions, differences, labels
from hardsoft.config.machine import machine_on
from hardsoft.core.files import to_json
from hardsoft.engines.local.build import local_engine
from hardsoft.engines.pool import Pool
from hardsoft.engines.shares import physical_cores
from hardsoft.prompting.prompts import read_prompt

PROMPTS = ("cot", "label_only")
DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dtypes", description=__doc__)
    parser.add_argument("--skills", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides such as model=tiny")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    skills = pl.read_csv("data/reference/labels.csv")["skill"].to_list()[: arguments.skills]
    cores = physical_cores()
    share = max(1, len(skills) // (4 * cores))
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    print(f"{len(skills)} skills, {cores} processes; AMX {'amx_bf16' in cpu}, AVX-512 {'avx512f' in cpu}")

    figures = {}
    for prompt in PROMPTS:
        configs = {
            dtype: configuration(*arguments.overrides, f"prompt={prompt}", f"model.dtype={dtype}", "engine.batch_size=64")
            for dtype in DTYPES
        }
        chats = [read_prompt(configs["float32"].prompt).messages(skill) for skill in skills]
        with ExitStack() as stack:
            engines = {
                dtype: (
                    stack.enter_context(
                        Pool([partial(local_engine, config, machine_on(config, "cpu"), share)] * cores, share, threads=1)
                    ),
                    chats,
                )
                for dtype, config in configs.items()
            }
            rates = compare({**engines}, arguments.rounds)
        changed = differences(*(labels(completions(config, skills)) for config in configs.values()))
        figures[prompt] = {
            "speed_ratio": round(median_ratio(rates, "bfloat16", "float32"), 3),
            "changed_labels": round(changed / len(skills), 4),
        }
        print(
            f"{prompt:<12}bfloat16 {figures[prompt]['speed_ratio']:.2f} times as fast, {changed} of {len(skills)} labels changed"
        )
    if arguments.json:
        Path(arguments.json).write_text(to_json(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
