"""A checkpoint folder or a hub model into memory, quantised by bitsandbytes or not, on CPU or GPU."""

import json
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar
from transformers.utils.peft_utils import find_adapter_config_file

from hardsoft.config.schema import ModelConfig, QuantizationConfig
from hardsoft.core.checkpoints import weights_hash
from hardsoft.core.errors import InputError, first_line
from hardsoft.core.progress import note
from hardsoft.core.secrets import mask
from hardsoft.engines.local.saved import check_folder, check_quantized, refuse_adapter, saved_quantization

_QUANTIZED = re.compile(
    r"(?:^|[._])(?:SCB|weight_format|qweight|qzeros|scales|g_idx|absmax|quant_map|nested_\w+|quant_state\w*|weight_packed"
    r"|(?:weight|input|output|k|v)_(?:global_)?(?:scale|zero_point)(?:_inv|_2)?|\w+_(?:blocks|scales))(?:$|\.)"
)
"""Names of what quantisation adds to weights."""
_ADAPTERS = re.compile(r"(?:^|\.)(?:lora_\w+|base_layer|modules_to_save|ia3_l)(?:$|\.)")
"""Names of what adapters add to layers."""
_MASK = re.compile(r"(?:attn|attention)\.(?:masked_)?bias$")
"""Names of older checkpoints' causal masks, which are no parameters."""


def load(model: ModelConfig, quantization: QuantizationConfig, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal LM with its tokenizer, for inference, onto `cpu`, `cuda` or one GPU such as `cuda:1`.

    Args:
        quantization: its `dequantize` decided, see `config.machine`.

    Raises:
        InputError: the checkpoint lacks files or tensors, is in another form than configured, or cannot be had from the hub.
    """
    disable_progress_bar()
    if model.source == "folder":
        check_folder(model.name, quantization)
        check_checkpoint(model.name)
    source = {"revision": model.revision, "local_files_only": model.source == "folder", "trust_remote_code": False}
    if quantization.method == "int8":  # it warns of a cast at every layer and step
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.name, **source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model.name,
            dtype=getattr(torch, model.dtype),
            device_map={"": device},
            output_loading_info=True,
            **_as_saved(model, quantization, source),
            **source,
        )
    except InputError:
        raise
    except Exception as error:  # the loaders raise whatever their file formats and transports do
        reason = mask(first_line(error), os.environ.get("HF_TOKEN", ""))
        raise InputError(f"model.name {model.name}: cannot be loaded: {reason}") from error
    network, report = loaded
    check_tensors(report, model.name, network)
    if quantization.dequantize is True:
        network = network.dequantize(dtype=getattr(torch, model.dtype))
    # Of the checkpoint's own settings only the end tokens count: a repetition penalty, say, would change greedy text.
    ends = end_tokens(network, tokenizer)
    pad = network.generation_config.pad_token_id
    network.generation_config = GenerationConfig(eos_token_id=ends or None, pad_token_id=ends[0] if ends and pad is None else pad)
    return network.eval(), tokenizer


def _as_saved(model: ModelConfig, quantization: QuantizationConfig, source: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration, and how to quantise it where it is not quantised already; see `saved`."""
    adapter = find_adapter_config_file(model.name, revision=model.revision) if model.source == "hub" else None
    if adapter:
        refuse_adapter(model.name, json.loads(Path(adapter).read_text(encoding="utf-8")))
    config = AutoConfig.from_pretrained(model.name, **source)
    saved = saved_quantization(config.to_dict())
    check_quantized(model.name, saved, quantization)
    if not saved:
        return {"config": config, "quantization_config": bitsandbytes_config(quantization, model.dtype)}
    config.quantization_config = {**saved, "bnb_4bit_compute_dtype": model.dtype}
    return {"config": config}


def check_tensors(report: Any, name: str, network: PreTrainedModel | None = None) -> None:
    """Hold a checkpoint's tensors against its architecture's; a note tells of harmless ones that are too many.

    Raises:
        InputError: it lacks tensors, which would be random numbers, or has parameters that the network would go without.
    """
    tied = getattr(network, "all_tied_weights_keys", None) or {}
    unexpected = sorted(set(map(str, report.get("unexpected_keys", ()))) - set(tied))
    quantized = [tensor for tensor in unexpected if _QUANTIZED.search(tensor)]
    adapters = [tensor for tensor in unexpected if _ADAPTERS.search(tensor)]
    parameters = [tensor for tensor in unexpected if tensor.endswith((".weight", ".bias")) and not _MASK.search(tensor)]
    if quantized:
        raise InputError(f"model.name {name}: holds quantised weights ({_listed(quantized)}); take the unquantised model")
    if adapters:
        raise InputError(f"model.name {name}: holds an adapter ({_listed(adapters)}); merge it into the model")
    missing = sorted(map(str, report.get("missing_keys", ()))) + sorted(
        str(tensor) for tensor, *_ in report.get("mismatched_keys", ())
    )
    if missing:
        raise InputError(f"model.name {name}: the checkpoint lacks tensors of its architecture: {_listed(missing)}")
    if parameters:
        raise InputError(
            f"model.name {name}: the checkpoint has parameters that its architecture does not take: {_listed(parameters)}; "
            "take the checkpoint whose config.json fits its weights"
        )
    if unexpected:
        note(f"model.name {name}: not used: {_listed(unexpected)}")


def _listed(tensors: list[str]) -> str:
    return f"{tensors[0]} and {len(tensors) - 1} more" if len(tensors) > 1 else tensors[0]


def end_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end a message: those that the checkpoint's configurations name, and the tokenizer's own."""
    named: list[Any] = [tokenizer.eos_token_id]
    for config in (network.generation_config, network.config, network.config.get_text_config()):
        ends = getattr(config, "eos_token_id", None)
        named += ends if isinstance(ends, list | tuple) else [ends]
    return sorted({int(token) for token in named if token is not None and int(token) >= 0})


def check_checkpoint(folder: str) -> None:
    """Raise InputError, naming what is missing, unless a folder has what a causal LM and its tokenizer need."""
    present = {path.name for path in Path(folder).glob("*")}
    missing = [] if "config.json" in present else ["config.json"]
    if not present & {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}:
        missing.append("tokenizer.json")
    if not any(name.endswith((".safetensors", ".bin")) for name in present):
        missing.append("*.safetensors")
    if missing:
        raise InputError(
            f"model.name {folder}: the checkpoint folder lacks {', '.join(missing)}; one that is in git comes back with "
            f"`git checkout {folder}`, one that is built with `dvc repro`"
        )


def weights_identity(model: ModelConfig) -> str:
    """A hub model's name and commit, or of a folder its name and a hash of its weights; its other files do not count."""
    if model.source == "hub":
        return f"{model.name} {model.revision}"
    return f"{Path(model.name).name} {weights_hash(model.name)}"


def bitsandbytes_config(quantization: QuantizationConfig, dtype: str) -> BitsAndBytesConfig | None:
    """The bitsandbytes settings of a quantisation option; None for full precision."""
    if quantization.method == "none":
        return None
    if quantization.method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.method,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
