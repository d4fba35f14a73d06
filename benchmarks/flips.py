"""The batch-size audit: how many labels change with the batch size, the dtype or the quantisation alone.

Greedy decoding is deterministic in exact arithmetic only: another batch size sums in another order, and where two tokens are
almost equally probable, rounding decides. This counts the labels that flip for that reason, and beside them those that another
dtype or quantisation flips. Differences between batch sizes are within a setting; the first setting at the first batch size is
what settings are compared with.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from benchmarks.classify import configuration
from hardsoft.config.engines import LocalEngineConfig
from hardsoft.config.machine import find_machine
from hardsoft.config.schema import Config
from hardsoft.core.chat import Completion
from hardsoft.core.files import to_json
from hardsoft.core.labels import Label
from hardsoft.engines.local.build import local_engine
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.prompts import read_prompt

SETTINGS = ("model.dtype=float32", "model.dtype=bfloat16", "quantization=nf4", "quantization=int8")


def completions(config: Config, skills: Sequence[str]) -> list[Completion]:
    """What the configured model answers about each skill; the model is freed on return, for the next one."""
    assert isinstance(config.engine, LocalEngineConfig)
    prompt = read_prompt(config.prompt)
    engine = local_engine(config, find_machine(config))
    results: dict[int, Completion] = {}
    engine.complete([prompt.messages(skill) for skill in skills], results.update)
    return [results[row] for row in range(len(skills))]


def labels(completed: Sequence[Completion]) -> list[Label]:
    return [read_answer(one.text, one.finish_reason).label for one in completed]


def texts(completed: Sequence[Completion]) -> list[str]:
    return [one.text for one in completed]


def differences(ours: Sequence[str], theirs: Sequence[str]) -> int:
    return sum(mine != other for mine, other in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flips", description=__doc__)
    parser.add_argument("--skills", type=int, default=200, help="how many of the reference skills, from the first on")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument(
        "--settings",
        nargs="+",
        default=SETTINGS,
        metavar="OVERRIDE",
        help="a Hydra override each, or several joined by +: quantization=nf4+quantization.dequantize=false",
    )
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides of all settings, before the options or after a --: model=llama_3_1_8b"
    )
    arguments = parser.parse_args()
    configs = {
        (setting, size): configuration(
            "engine.device=auto", *arguments.overrides, f"engine.batch_size={size}", *setting.split("+")
        )
        for setting in arguments.settings
        for size in arguments.batch_sizes
    }
    if all(config.model.source == "folder" for config in configs.values()):
        os.environ["HF_HUB_OFFLINE"] = "1"
    skills = pl.read_csv("data/reference/labels.csv")["skill"].to_list()[: arguments.skills]

    print(
        f"{len(skills)} skills; differences in labels and texts from batch size {arguments.batch_sizes[0]} of the same setting,"
    )
    print(f"and in labels from {arguments.settings[0]} at that batch size")
    width = max(map(len, arguments.settings))
    print(f"{'setting':<{width}}{'batch':>8}{'labels':>8}{'texts':>8}{'labels, first setting':>24}")
    done: dict[tuple[str, int], list[Completion]] = {}
    rows = []
    for (setting, size), config in configs.items():
        ours = done[setting, size] = completions(config, skills)
        same_setting = done[setting, arguments.batch_sizes[0]]
        first_setting = done[arguments.settings[0], arguments.batch_sizes[0]]
        row = {
            "setting": setting,
            "batch_size": size,
            "labels_differ": differences(labels(ours), labels(same_setting)),
            "texts_differ": differences(texts(ours), texts(same_setting)),
            "labels_differ_from_first_setting": differences(labels(ours), labels(first_setting)),
        }
        rows.append(row)
        print(
            f"{setting:<{width}}{size:>8}{row['labels_differ']:>8}{row['texts_differ']:>8}"
            f"{row['labels_differ_from_first_setting']:>24}",
            flush=True,
        )
    if arguments.json:
        Path(arguments.json).write_text(to_json(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
