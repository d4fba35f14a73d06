"""A checkpoint folder or a hub model into memory, quantised by bitsandbytes or not, on CPU or GPU."""

import logging
import warnings
from pathlib import Path

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from hardsoft.config.schema import ModelConfig, QuantizationConfig
from hardsoft.core.errors import InputError

ROOM_TO_DEQUANTIZE = 1.1
"""Free memory that dequantising takes, as a multiple of the dequantised weights; what their 4 bits held is freed for the rest."""


def load(model: ModelConfig, quantization: QuantizationConfig, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal LM with its tokenizer, for inference, onto `cpu`, `cuda` or one GPU such as `cuda:1`.

    Raises:
        InputError: the checkpoint folder lacks files, or the model cannot be had from the hub.
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
        network = AutoModelForCausalLM.from_pretrained(
            model.name,
            dtype=getattr(torch, model.dtype),
            quantization_config=bitsandbytes_config(quantization, model.dtype),
            device_map={"": device},
            **source,
        )
    except Exception as error:  # the loaders raise whatever their file formats and transports do
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"model.name {model.name}: cannot be loaded: {reason}") from error
    if quantization.dequantize is True or (quantization.dequantize == "auto" and has_room_to_dequantize(network)):
        network = network.dequantize(dtype=getattr(torch, model.dtype))
    return network.eval(), tokenizer


def has_room_to_dequantize(network: PreTrainedModel) -> bool:
    """Whether free memory holds the 4-bit weights of a network in the network's dtype, with room to work in."""
    from bitsandbytes.nn.modules import Linear4bit

    quantized = [module for module in network.modules() if isinstance(module, Linear4bit)]
    size = sum(module.in_features * module.out_features for module in quantized) * network.dtype.itemsize
    on_gpu = network.device.type == "cuda"
    free = torch.cuda.mem_get_info(network.device)[0] if on_gpu else psutil.virtual_memory().available
    return bool(free >= ROOM_TO_DEQUANTIZE * size)


def check_checkpoint(folder: str) -> None:
    """Raise InputError, naming what is missing, unless a folder has what a causal LM and its tokenizer need."""
    present = {path.name for path in Path(folder).glob("*")}
    wanted = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    missing = [name for name in wanted if name not in present]
    if not any(name.endswith(".safetensors") for name in present):
        missing.append("*.safetensors")
    if missing:
        raise InputError(
            f"model.name {folder}: the checkpoint folder lacks {', '.join(missing)}; restore it with `git checkout {folder}`"
        )


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
