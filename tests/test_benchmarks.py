"""Every benchmark still runs, on as little as it takes; what it measures is for its own page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repositories import ROOT

SMALL = {
    "cluster": ["--tiny", "40", "--smollm2", "0", "--nothing", "3000"],
    "coverage": ["--sizes", "10"],
    "dtypes": ["model=tiny", "--skills", "4", "--rounds", "1"],
    "flips": ["model=tiny", "--skills", "3", "--batch-sizes", "1", "2", "--settings", "model.dtype=float32"],
    "gpu": ["--tiny", "--rows", "4", "--slots", "2", "--methods", "generate", "decode", "dynamic", "score", "--profile"],
    "learning_curve": ["model=tiny", "--sizes", "10", "--draws", "1", "--pool", "20", "--held-out", "30"],
    "million": ["--skills", "300", "--mentions", "2000"],
    "scale": ["--skills", "300"],
}


def run(name: str, tmp_path: Path, *options: str) -> object:
    """Run a benchmark and return what its --json holds."""
    file = tmp_path / "figures.json"
    environment = os.environ | {"PYTHONPATH": "src"}
    command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--json", str(file)]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return json.loads(file.read_text(encoding="utf-8"))


def test_all_are_here() -> None:
    runnable = {file.stem for file in (ROOT / "benchmarks").glob("*.py") if "__main__" in file.read_text(encoding="utf-8")}
    assert runnable == {*SMALL, "classify"}


SLOW = sorted({*SMALL} - {"flips", "gpu"})


@pytest.mark.parametrize("name", ["flips", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_it_runs_and_writes_its_figures(name: str, tmp_path: Path) -> None:
    assert run(name, tmp_path, *SMALL[name])


@pytest.mark.slow
def test_the_gpu_benchmark_tells_of_nf4_and_dequantised_weights(tmp_path: Path) -> None:
    figures = run("gpu", tmp_path, *SMALL["gpu"])
    assert isinstance(figures, dict)
    assert set(figures) == {"notebook_ratio", "roofline_share", "label_per_second", "rows"}
    assert {row["weights"] for row in figures["rows"]} == {"nf4", "dequantised"}


@pytest.mark.slow
def test_classify_runs_and_labels_as_the_notebooks_loop_does(tmp_path: Path) -> None:
    figures = run("classify", tmp_path, "--model", "tiny", "--skills", "20", "--rounds", "1")
    assert isinstance(figures, dict)
    assert figures["label_agreement"] == 1.0
