"""The training script of the tiny model: that it still runs on the code around it, not how well it trains."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.repositories import ROOT

EVERY = 120
"""Of the lexicon's names, one in so many: evaluating all takes a minute, untrained models never ending by themselves."""


@pytest.mark.slow
def test_two_steps_of_training_leave_a_checkpoint_and_its_evaluation(tmp_path: Path) -> None:
    for folder in ("conf", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "models/tiny").mkdir(parents=True)
    shutil.copy(ROOT / "models/tiny/train.py", tmp_path / "models/tiny/train.py")
    (tmp_path / "models/lexicon").mkdir()
    shutil.copy(ROOT / "models/lexicon/families.csv", tmp_path / "models/lexicon/families.csv")
    header, *names = (ROOT / "models/lexicon/lexicon.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "models/lexicon/lexicon.csv").write_text("".join([header, *names[::EVERY]]), encoding="utf-8")

    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "models/tiny/train.py", "--steps", "2"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    tested = [line.partition(",")[2].partition(":")[0].strip() for line in run.stdout.splitlines() if line.startswith("test, ")]
    assert tested == sorted(path.stem for path in (ROOT / "conf/prompt").glob("*.yaml"))

    AutoTokenizer.from_pretrained(tmp_path / "models/tiny/checkpoint")
    trained, shipped = (
        AutoModelForCausalLM.from_pretrained(folder / "models/tiny/checkpoint").state_dict() for folder in (tmp_path, ROOT)
    )
    assert trained.keys() == shipped.keys()
    layers = [name for name in trained if ".layers." in name]
    assert [trained[name].shape for name in layers] == [shipped[name].shape for name in layers]
