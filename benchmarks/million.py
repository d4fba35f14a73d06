"""What every stage but classify takes of 1,000,000 distinct skills in 10,000,000 mentions: seconds and peak memory.

Each stage runs as the pipeline runs it, in a process of its own, in a copy of the repository's configuration; completions are
made up in the four shapes that `cot` gives.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.scale import FILES, run_stage
from hardsoft.core.files import to_json

STAGES = ("extract", "clean", "sample", "judge", "metrics", "report")
ANSWERS = (("Hard", 0.9), ("Hard", 0.7), ("Soft", 0.8), ("Unknown", 0.6))
SEED = 1


def write_inputs(skills: int, mentions: int) -> None:
    """The raw export, reference labels for a part of it, and completions with probabilities."""
    random = np.random.default_rng(SEED)
    names = pl.Series([f"Synthetic Skill {number} Of Trade {number % 997}" for number in range(skills)])
    drawn = np.concatenate([np.arange(skills), random.zipf(1.3, mentions - skills) % skills])
    raw = pl.DataFrame({"CANDIDATE_ID": random.integers(1, mentions // 20, mentions), "Skill": names[drawn]})
    raw.with_columns(Skill_Type=pl.lit("Professional_Skill")).write_csv("data/raw/cv_skills.csv", separator=";")
    kinds = random.integers(0, len(ANSWERS), skills)
    labels = pl.DataFrame({"skill": names, "label": [ANSWERS[kind][0] for kind in kinds], "note": ""})
    labels.sample(fraction=0.5, seed=SEED).write_csv("data/reference/labels.csv")
    order = names.sort()
    answers = [ANSWERS[kind] for kind in kinds]
    with open("data/interim/completions.jsonl", "w", encoding="utf-8") as file:
        for name, (label, _) in zip(order, answers, strict=True):
            text = f" It names something one learns: {name.lower()}.\nStep 2: It is learned and tested.\nAnswer: {label}"
            file.write(json.dumps({"skill": name, "completion": text, "finish_reason": "stop", "tokens": 27}) + "\n")
    shares = {label: [p if answer == label else (1 - p) / 2 for answer, p in answers] for label in ("Hard", "Soft", "Unknown")}
    columns = {label.lower(): pl.Series(values).round(4) for label, values in shares.items()}
    pl.DataFrame({"skill": order, **columns}).write_csv("data/interim/probabilities.csv")


def measure(skills: int, mentions: int) -> dict[str, Any]:
    """Seconds and peak MB by stage, and the seconds of all together."""
    write_inputs(skills, mentions)
    stages = {stage: run_stage(stage) for stage in STAGES}
    return {**stages, "seconds": sum(one["seconds"] for one in stages.values())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--skills", type=int, default=1_000_000)
    parser.add_argument("--mentions", type=int, default=10_000_000)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for name in (*FILES, ".dvc/plots", "params.yaml"):
            copy = shutil.copytree if (root / name).is_dir() else shutil.copyfile
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            copy(root / name, Path(folder) / name)
        os.chdir(folder)
        for name in ("raw", "reference", "interim"):
            Path("data", name).mkdir(parents=True)
        figures = to_json(measure(options.skills, options.mentions))
        os.chdir(root)
    print(figures)
    if options.json:
        Path(options.json).write_text(figures, encoding="utf-8")


if __name__ == "__main__":
    main()
