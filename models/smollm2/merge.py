"""Merge the committed LoRA adapter into the converted base: models/smollm2/checkpoint/, a model like any other.

Each target weight becomes W + scale * (B @ A), computed in float64 and rounded once to bfloat16. The adapter is in float16, so
that the products and nearly all their sums are exact there, and the file has the same bytes on every processor.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hardsoft.core.errors import InputError
from hardsoft.core.runner import run
from hardsoft.engines.local.wording import Hints

FOLDER = Path(__file__).parent
WRAPPER = "base_model.model."  # what peft puts before a module's own name
DROPPED_BITS = 45  # of the 52 of a float64's fraction; bfloat16 has 7


def merged(weights: dict[str, Tensor], adapter: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The base's weights with the adapter in them.

    Raises:
        InputError: the adapter is of another kind, or for another model.
    """
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("use_rslora"):
        raise InputError("adapter_config.json: only plain LoRA can be merged")
    if not isinstance(config.get("r"), int) or not isinstance(config.get("lora_alpha"), int | float):
        raise InputError("adapter_config.json: r and lora_alpha should be numbers")
    rank, result = config["r"], dict(weights)
    for name, (down, up) in _pairs(adapter).items():
        weight = weights.get(f"{name}.weight")
        if weight is None:
            raise InputError(f"the adapter does not fit: the base has no {name}.weight")
        if down.shape != (rank, weight.shape[1]) or up.shape != (weight.shape[0], rank):
            shapes = f"{tuple(up.shape)} x {tuple(down.shape)}"
            raise InputError(
                f"the adapter does not fit: {name} is {tuple(weight.shape)} in the base, {shapes} of rank {rank} here"
            )
        exact = weight.double() + config["lora_alpha"] / rank * (up.double() @ down.double())
        result[f"{name}.weight"] = to_bfloat16(exact)
    return result


def to_bfloat16(exact: Tensor) -> Tensor:
    """Round float64 to the nearest bfloat16, ties to even: torch's own cast goes through float32 and rounds twice."""
    bits = exact.view(torch.int64)
    half = (1 << DROPPED_BITS - 1) - 1
    rounded = (bits + half + ((bits >> DROPPED_BITS) & 1)) >> DROPPED_BITS << DROPPED_BITS
    return rounded.view(torch.float64).to(torch.bfloat16)


def checkpoint_config(base: dict[str, Any], calibration: dict[str, Any]) -> dict[str, Any]:
    """The base's config.json with what the engine goes by when it reads labels."""
    return {**base, **Hints.of(calibration).as_config()}


def _pairs(adapter: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The two factors of each module that an adapter changes."""
    modules = {key.removeprefix(WRAPPER).rsplit(".lora_", 1)[0] for key in adapter}
    keys = {name: [f"{WRAPPER}{name}.lora_{factor}.weight" for factor in "AB"] for name in sorted(modules)}
    unknown = set(adapter) ^ {key for pair in keys.values() for key in pair}
    if unknown or not adapter:
        raise InputError(
            f"the adapter does not fit: it should hold pairs of lora_A and lora_B, see {min(unknown, default='none')}"
        )
    return {name: (adapter[down], adapter[up]) for name, (down, up) in keys.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return content


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("base", "adapter", "checkpoint"):
        parser.add_argument(f"--{folder}", type=Path, default=FOLDER / folder)
    options = parser.parse_args()
    base, adapter, output = options.base, options.adapter, options.checkpoint
    config = checkpoint_config(_read_json(base / "config.json"), _read_json(FOLDER / "calibration.json"))
    weights = merged(
        _read_tensors(base / "model.safetensors"),
        _read_tensors(adapter / "adapter_model.safetensors"),
        _read_json(adapter / "adapter_config.json"),
    )
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(base, output, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    run("smollm2 checkpoint", main)
