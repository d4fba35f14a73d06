"""The training script of the embedded model: that it still runs on the code around it, not how well it trains."""

import shutil
import subprocess
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import ROOT

EVERY = 20
"""Of the lexicon's names, one in so many: evaluating all takes a minute, untrained models never ending by themselves."""


def test_two_steps_of_training_leave_a_checkpoint_and_its_evaluation(tmp_path: Path) -> None:
    for folder in ("conf", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "models/embedded").mkdir(parents=True)
    for name in ("families.csv", "train.py"):
        shutil.copy(ROOT / "models/embedded" / name, tmp_path / "models/embedded" / name)
    header, *names = (ROOT / "models/embedded/lexicon.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "models/embedded/lexicon.csv").write_text("".join([header, *names[::EVERY]]), encoding="utf-8")

    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "models/embedded/train.py", "--steps", "2"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    tested = [line.partition(",")[2].partition(":")[0].strip() for line in run.stdout.splitlines() if line.startswith("test, ")]
    assert tested == sorted(path.stem for path in (ROOT / "conf/prompt").glob("*.yaml"))

    AutoTokenizer.from_pretrained(tmp_path / "models/embedded/checkpoint")
    trained, shipped = (
        AutoModelForCausalLM.from_pretrained(folder / "models/embedded/checkpoint").state_dict() for folder in (tmp_path, ROOT)
    )
    assert trained.keys() == shipped.keys()
    layers = [name for name in trained if ".layers." in name]
    assert [trained[name].shape for name in layers] == [shipped[name].shape for name in layers]
