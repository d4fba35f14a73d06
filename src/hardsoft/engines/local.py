"""transformers in this process: a checkpoint folder or a hub model, quantised by bitsandbytes or not, on CPU or GPU."""

import logging
import resource
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

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

from hardsoft.config import ModelConfig, QuantizationConfig
from hardsoft.engines import Completion, OnResult
from hardsoft.stage import InputError


def load(model: ModelConfig, quantization: QuantizationConfig, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal LM with its tokenizer, for inference, onto `cpu` or `cuda`.

    Raises:
        InputError: the checkpoint folder lacks files, or the model cannot be had from the hub.
    """
    disable_progress_bar()
    if model.local:
        check_checkpoint(model.name)
    source = {"revision": model.revision, "local_files_only": model.local, "trust_remote_code": False}
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
    return network.eval(), tokenizer


def pick_device(device: str) -> str:
    """`cpu` or `cuda`; `auto` is the GPU where there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


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


class LocalEngine:
    """Greedy decoding in left-padded batches of prompts of similar length."""

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int, max_new_tokens: int
    ) -> None:
        self._network, self._tokenizer, self._batch_size = network, tokenizer, batch_size
        stops = network.generation_config.eos_token_id
        self._stops = {stops} if isinstance(stops, int) else set(stops or [])
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._stops, default=0)
        self._generation = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(self._stops) or None,
            pad_token_id=self._pad,
        )

    def complete(self, prompts: Sequence[list[int]], on_result: OnResult) -> None:
        by_length = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
        for start in range(0, len(by_length), self._batch_size):
            rows = by_length[start : start + self._batch_size]
            for row, generated in zip(rows, self._generate([prompts[row] for row in rows]), strict=True):
                on_result(row, self._completion(generated))

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]]) -> list[list[int]]:
        """Token ids generated after each prompt, padded at the end to equal length."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        device = self._network.device
        output = self._network.generate(  # type: ignore[operator]
            ids.to(device), attention_mask=mask.to(device), generation_config=self._generation
        )
        generated: list[list[int]] = output[:, width:].tolist()
        return generated

    def _completion(self, generated: list[int]) -> Completion:
        end = next((position for position, token in enumerate(generated) if token in self._stops), None)
        text = str(self._tokenizer.decode(generated[:end], skip_special_tokens=True))
        if end is None:
            return Completion(text, "length", len(generated))
        return Completion(text, "stop", end + 1)


def peak_memory_mb(device: str) -> float:
    """Peak memory of this process so far in MB: of the GPU on `cuda`, else resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6
