"""A checkpoint folder or a hub model into memory, quantised by bitsandbytes or not, on CPU or GPU."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from hardsoft.config.schema import ModelConfig, QuantizationConfig
from hardsoft.core.checkpoints import weights_hash
from hardsoft.core.errors import InputError, first_line
from hardsoft.core.secrets import mask


def load(model: ModelConfig, quantization: QuantizationConfig, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal LM with its tokenizer, for inference, onto `cpu`, `cuda` or one GPU such as `cuda:1`.

    Args:
        quantization: its `dequantize` decided, see `config.machine`.

    Raises:
        InputError: the checkpoint folder lacks files or tensors, or the model cannot be had from the hub.
    """
    disable_progress_bar()
    if model.source == "folder":
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
            quantization_config=bitsandbytes_config(quantization, model.dtype),
            device_map={"": device},
            output_loading_info=True,
            **source,
        )
    except Exception as error:  # the loaders raise whatever their file formats and transports do
        reason = mask(first_line(error), os.environ.get("HF_TOKEN", ""))
        raise InputError(f"model.name {model.name}: cannot be loaded: {reason}") from error
    network, report = loaded
    check_tensors(report, model.name)
    if quantization.dequantize is True:
        network = network.dequantize(dtype=getattr(torch, model.dtype))
    # Of the checkpoint's own settings only the end tokens count: a repetition penalty, say, would change greedy text.
    ends = end_tokens(network, tokenizer)
    pad = network.generation_config.pad_token_id
    network.generation_config = GenerationConfig(eos_token_id=ends or None, pad_token_id=ends[0] if ends and pad is None else pad)
    return network.eval(), tokenizer


def check_tensors(report: Any, name: str) -> None:
    """Raise InputError if the checkpoint lacks tensors of its architecture, which would be random numbers."""
    missing = sorted(map(str, report.get("missing_keys", ()))) + sorted(
        str(tensor) for tensor, *_ in report.get("mismatched_keys", ())
    )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"model.name {name}: the checkpoint lacks tensors of its architecture: {missing[0]}{more}")


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
