"""Checkpoints that are not what the configuration says: quantised already, or adapters; real ones, made of the committed one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hardsoft.config.compose import configuration
from hardsoft.config.schema import QuantizationConfig
from hardsoft.core.errors import InputError
from hardsoft.engines.local.loading import check_tensors, load
from hardsoft.engines.local.saved import check_configured, check_quantized
from tests.support.models import MODEL
from tests.support.repositories import CHECKPOINT, ROOT

PROMPT = torch.tensor([[1, 40, 50, 60, 70, 80]])
WEIGHTS = "model.safetensors"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / CHECKPOINT, tmp_path / "mine"))


def option(method: Any, double_quant: bool = False, dequantize: bool = False) -> QuantizationConfig:
    return QuantizationConfig(method=method, double_quant=double_quant, dequantize=dequantize)


def loaded(folder: Path, quantization: QuantizationConfig) -> Any:
    return load(MODEL.model_copy(update={"name": str(folder), "dep": str(folder)}), quantization, "cpu")[0]


def save_quantized(folder: Path, **form: Any) -> None:
    network = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**form), device_map={"": "cpu"}, dtype=torch.float32
    )
    (folder / WEIGHTS).unlink()
    network.save_pretrained(folder)


def write(path: Path, **fields: Any) -> None:
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, **fields}), encoding="utf-8")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize(
    ("form", "right", "remedy"),
    [
        ({"load_in_8bit": True}, option("int8"), r"bitsandbytes, 8 bits\); set quantization=int8"),
        (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            option("nf4"),
            r"4 bits, nf4\); set quantization=nf4 quantization.double_quant=false",
        ),
        (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
            option("fp4", True, True),
            r"4 bits, fp4, double_quant\); set quantization=fp4 quantization.double_quant=true",
        ),
    ],
)
def test_a_quantised_checkpoint_loads_as_what_it_is_and_as_nothing_else(
    mine: Path, form: dict[str, Any], right: QuantizationConfig, remedy: str
) -> None:
    fresh = loaded(mine, right)(PROMPT).logits
    save_quantized(mine, **form)
    for other in (option("none"), option("int8"), option("nf4"), option("nf4", True), option("fp4")):
        if (other.method, other.double_quant) != (right.method, right.double_quant):
            with pytest.raises(InputError, match=f"mine: is quantised already .*{remedy}"):
                loaded(mine, other)
    torch.testing.assert_close(loaded(mine, right)(PROMPT).logits, fresh, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "by GPTQ"),
        ({"quant_method": "awq"}, "by AWQ"),
        ({"quant_method": "fp8"}, "by FP8"),
        ({"quant_method": "compressed-tensors"}, "by compressed-tensors"),
        ({"bits": 3}, "by a method that its config.json does not name"),
    ],
)
def test_what_other_methods_quantised_is_named(mine: Path, saved: dict[str, Any], words: str) -> None:
    write(mine / "config.json", quantization_config=saved)
    for method in ("none", "nf4"):
        with pytest.raises(InputError, match=f"mine: is quantised {words}, which .*; take the unquantised model"):
            loaded(mine, option(method))
    write(mine / "config.json", quantization_config=None)
    write(mine / "quantize_config.json", bits=4)
    with pytest.raises(InputError, match="by GPTQ"):
        loaded(mine, option("none"))


@pytest.mark.parametrize("only", [True, False])
def test_an_adapter_is_no_model_and_is_never_left_out_in_silence(mine: Path, only: bool) -> None:
    shutil.copy(mine / WEIGHTS, mine / "adapter_model.safetensors")
    write(mine / "adapter_config.json", peft_type="LORA", base_model_name_or_path="someone/base", r=8)
    if only:
        (mine / "config.json").unlink()
        (mine / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"mine: is a LoRA adapter of someone/base; merge it .*merge_and_unload"):
        loaded(mine, option("none"))


def test_a_stage_refuses_a_folder_before_a_row_is_looked_up(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = configuration(f"model.name={mine}", f"model.dep={mine}")
    check_configured(config)
    write(mine / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(InputError, match="by GPTQ"):
        check_configured(config)
    check_configured(configuration(f"model.name={mine}", f"model.dep={mine}", "engine=server", "engine.model=m"))
    check_quantized("x", {}, option("nf4"))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ("model.layers.0.mlp.down_proj.SCB", "holds quantised weights"),
        ("model.layers.0.mlp.down_proj.weight_scale", "holds quantised weights"),
        ("model.layers.0.self_attn.q_proj.lora_A.default.weight", "holds an adapter"),
        ("model.layers.0.self_attn.q_proj.bias", "parameters that its architecture does not take"),
        ("model.layers.3.mlp.down_proj.weight", "parameters that its architecture does not take"),
    ],
)
def test_tensors_that_nobody_takes_are_refused(mine: Path, tensor: str, words: str) -> None:
    change_tensors(mine, lambda tensors: tensors.update({tensor: torch.ones(4)}))
    with pytest.raises(InputError, match=f"mine: .*{words}"):
        loaded(mine, option("none"))


def test_quantised_weights_without_a_word_in_their_config_are_named(mine: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.down_proj.qweight"] = tensors.pop("model.layers.0.mlp.down_proj.weight").int()

    change_tensors(mine, change)
    with pytest.raises(InputError, match=r"mine: holds quantised weights \(model.layers.0.mlp.down_proj.qweight\)"):
        loaded(mine, option("none"))


def test_tensors_that_are_tied_or_no_parameters_do_no_harm(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(32)

    change_tensors(mine, change)
    loaded(mine, option("none"))
    capsys.readouterr()
    check_tensors({"unexpected_keys": {"h.0.attn.bias", "h.0.attn.masked_bias"}}, "x")
    assert capsys.readouterr().err == "note: model.name x: not used: h.0.attn.bias and 1 more\n"
