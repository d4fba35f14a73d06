"""What 100,000 skills cost when all are stored, whether computing many takes more memory than computing few, and starting.

Each stage runs as the pipeline runs it, in a process of its own, in a copy of the repository's configuration.
"""

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hardsoft.config.load import load_config
from hardsoft.config.machine import machine_on
from hardsoft.core.chat import Completion
from hardsoft.core.files import to_json
from hardsoft.prompting.prompts import read_prompt
from hardsoft.store.key import completion_setting
from hardsoft.store.rows import Store, canonical, default_path, make_keys

FILES = ("conf", "docs", "models/tiny/checkpoint", "models/readouts", "src")
SMOLLM2 = "models/smollm2/checkpoint"
START_UP_SKILLS = 20_000
COMPLETION = Completion("Step 1: a name.\nStep 2: It is learned and tested.\nAnswer: Hard", "stop", 27, (0.9, 0.06, 0.04))


def write_skills(count: int) -> list[str]:
    """Synthetic names, as stage extract would write them."""
    skills = sorted(f"Synthetic Skill {number} Of Trade {number % 997}" for number in range(count))
    Path("data/interim").mkdir(parents=True, exist_ok=True)
    lines = ["skill,mentions\n", *(f"{skill},1\n" for skill in skills)]
    Path("data/interim/skills.csv").write_text("".join(lines), encoding="utf-8")
    return skills


def run_stage(stage: str) -> dict[str, float]:
    """Seconds and peak MB of a stage."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", f"hardsoft.stages.{stage}"], env=os.environ | {"PYTHONPATH": "src"})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"stage {stage} failed")
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.perf_counter() - begin, "peak_mb": usage.ru_maxrss * kilobyte / 1e6}


def configure(*overrides: str) -> None:
    """Write params.yaml."""
    subprocess.run([sys.executable, "-m", "hardsoft.config", *overrides], check=True, env=os.environ | {"PYTHONPATH": "src"})


def stored(count: int) -> dict[str, Any]:
    """Classify and clean with every row in the store."""
    skills = write_skills(count)
    config = load_config()
    prompt, setting, store = (
        read_prompt(config.prompt),
        completion_setting(config, machine_on(config, "cpu")),
        Store(default_path()),
    )
    for start in range(0, count, 10_000):
        some = skills[start : start + 10_000]
        keys = make_keys(setting, (canonical(prompt.messages(skill)) for skill in some))
        store.put(setting, [(key, asdict(COMPLETION)) for key in keys])
    return {"classify": run_stage("classify"), "clean": run_stage("clean")}


def computed(counts: list[int]) -> dict[int, float]:
    """Peak MB of the engine's processes when so many rows are computed, label by label."""
    peaks = {}
    for count in counts:
        shutil.rmtree(".cache", ignore_errors=True)
        write_skills(count)
        run_stage("classify")
        peaks[count] = json.loads(Path("metrics/throughput.json").read_text(encoding="utf-8"))["peak_memory_mb"]
    return peaks


def first_row() -> float:
    """Seconds from the command until the first row is in an empty store."""
    shutil.rmtree(".cache", ignore_errors=True)
    begin, path = time.perf_counter(), default_path()
    process = subprocess.Popen([sys.executable, "-m", "hardsoft.stages.classify"], env=os.environ | {"PYTHONPATH": "src"})
    try:
        while not has_rows(path):
            if process.poll() is not None:
                sys.exit("stage classify ended without a row")
            time.sleep(0.02)
        return time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait()


def has_rows(path: Path) -> bool:
    """Whether a store, which another process writes, has a row."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection, suppress(sqlite3.OperationalError):
        return connection.execute("SELECT 1 FROM row LIMIT 1").fetchone() is not None
    return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--skills", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="of starting")
    arguments = parser.parse_args()
    repository = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            shutil.copytree(repository / name, Path(folder, name))
        os.chdir(folder)
        os.environ.pop("DVC_ROOT", None)
        configure("model=tiny", "prompt=cot", "engine.device=cpu")
        few = stored(1)
        many = stored(arguments.skills)
        configure("model=tiny", "prompt=label_only", "engine.device=cpu")
        peaks = computed([arguments.skills // 4, arguments.skills])
        write_skills(START_UP_SKILLS)
        start_up = {}
        for model in ("tiny", "smollm2") if (repository / SMOLLM2).exists() else ("tiny",):
            if model == "smollm2":
                Path("models/smollm2").mkdir()
                Path(SMOLLM2).symlink_to(repository / SMOLLM2)
            for prompt in ("cot", "label_only"):
                configure(f"model={model}", f"prompt={prompt}")
                start_up[f"{model} {prompt}"] = round(statistics.median(first_row() for _ in range(arguments.rounds)), 2)
        os.chdir(repository)
    figures = {
        "overhead_seconds": few["classify"]["seconds"],
        "stored": many,
        "computed_peak_mb": peaks,
        "first_row_seconds": start_up,
    }
    for name, seconds in start_up.items():
        print(f"{name}, {START_UP_SKILLS} skills: the first row is stored after {seconds:.1f} s")
    print(f"nothing to ask: classify takes {figures['overhead_seconds']:.1f} s")
    for stage, cost in many.items():
        print(f"{arguments.skills} skills stored: {stage} takes {cost['seconds']:.1f} s and {cost['peak_mb']:.0f} MB")
    for count, peak in peaks.items():
        print(f"{count} skills computed: the engine takes {peak:.0f} MB")
    if arguments.json:
        Path(arguments.json).write_text(to_json(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
