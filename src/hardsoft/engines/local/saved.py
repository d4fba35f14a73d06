"""In which form a checkpoint was saved, as its own files say: quantised or not, an adapter or a model. Imports no torch.

A form that differs from the configured one would load as noise, or as the base model without its adapter, in silence.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardsoft.config.engines import ModelEngineConfig
from hardsoft.config.schema import Config, QuantizationConfig
from hardsoft.core.errors import InputError

METHODS = {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "mxfp4": "MXFP4", "modelopt": "ModelOpt"}
"""Methods of quantising by the names that checkpoints give them, where people write them otherwise."""
SIDECARS = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
"""Files that say that a checkpoint is quantised where its config.json does not, and the method."""
ADAPTER, ADAPTERS_WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
CAN_BE_MERGED = {"LORA": "LoRA", "ADALORA": "AdaLoRA", "LOHA": "LoHa", "LOKR": "LoKr", "OFT": "OFT", "IA3": "IA3"}
"""Kinds of adapters that can become part of their base model's weights."""


def check_configured(config: Config) -> None:
    """`check_folder` of a configured model, where it is a folder that this program loads itself."""
    if isinstance(config.engine, ModelEngineConfig) and config.model.source == "folder":
        check_folder(config.model.name, config.quantization)


def check_folder(folder: str, quantization: QuantizationConfig) -> None:
    """Raise InputError if a checkpoint folder holds an adapter, or weights that are quantised otherwise than configured.

    A folder without the files that would say so passes: what it lacks is `loading`'s business.
    """
    place = Path(folder)
    if any((place / name).is_file() for name in (ADAPTER, *ADAPTERS_WEIGHTS)):
        refuse_adapter(folder, _read(place / ADAPTER))
    saved = saved_quantization(_read(place / "config.json"))
    for name, method in SIDECARS.items():
        if not saved and (place / name).is_file():
            saved = {"quant_method": method}
    check_quantized(folder, saved, quantization)


def refuse_adapter(name: str, adapter: Mapping[str, Any]) -> None:
    """Raise InputError saying what an adapter is one of, and what to do.

    Args:
        adapter: what its adapter_config.json holds, empty if it has none.
    """
    kind, base = str(adapter.get("peft_type") or "LORA").upper(), adapter.get("base_model_name_or_path") or "its base model"
    if kind not in CAN_BE_MERGED:
        raise InputError(f"model.name {name}: holds a {kind} adapter of {base}, which this program does not load; take a model")
    raise InputError(
        f"model.name {name}: is a {CAN_BE_MERGED[kind]} adapter of {base}; merge it into its base model (peft's "
        "merge_and_unload) and name that folder"
    )


def saved_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """How a model's config.json says that its weights are quantised; empty if they are not."""
    for holder in (config, config.get("text_config")):
        for key in ("quantization_config", "compression_config"):
            if isinstance(holder, Mapping) and (found := holder.get(key)):
                return dict(found) if isinstance(found, Mapping) else {"quant_method": str(found)}
    return {}


def check_quantized(name: str, saved: Mapping[str, Any], quantization: QuantizationConfig) -> None:
    """Raise InputError unless weights that are quantised already are so as `quantization` says.

    Args:
        saved: see `saved_quantization`; empty for weights that are not, which can be quantised in any way.
    """
    if not saved:
        return
    in_bits = _bits_of_bitsandbytes(saved)
    if in_bits is None:
        method = str(saved.get("quant_method") or "a method that its config.json does not name")
        raise InputError(
            f"model.name {name}: is quantised by {METHODS.get(method.lower(), method)}, which this program does not load; take "
            "the unquantised model"
        )
    if in_bits == 8:
        if quantization.method != "int8":
            raise InputError(f"model.name {name}: is quantised already (bitsandbytes, 8 bits); set quantization=int8")
        return
    kind, double = str(saved.get("bnb_4bit_quant_type", "fp4")), bool(saved.get("bnb_4bit_use_double_quant", False))
    if (quantization.method, quantization.double_quant) != (kind, double):
        twice = ", double_quant" if double else ""
        raise InputError(
            f"model.name {name}: is quantised already (bitsandbytes, 4 bits, {kind}{twice}); set quantization={kind} "
            f"quantization.double_quant={str(double).lower()}"
        )


def _bits_of_bitsandbytes(saved: Mapping[str, Any]) -> int | None:
    """The bits of weights quantised by bitsandbytes; None if they are quantised by something else."""
    if not str(saved.get("quant_method") or "bitsandbytes").lower().startswith("bitsandbytes"):
        return None
    for bits in (8, 4):
        if saved.get(f"load_in_{bits}bit") or saved.get(f"_load_in_{bits}bit"):
            return bits
    return None


def _read(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty if there is none, for the loaders say why a file cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
