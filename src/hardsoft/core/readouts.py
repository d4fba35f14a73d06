"""A read-out in a file: a linear map from a model's hidden state to the three labels. Imports no torch, and knows no model."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hardsoft.core.chat import Chat
from hardsoft.core.errors import InputError

Array = npt.NDArray[np.float32]
FIELDS = "readout"
"""The entry of the file's metadata that holds all that is no tensor, as JSON."""


@dataclass(frozen=True)
class ReadOut:
    """The label off the hidden state at a prompt's last token, behind one of the model's blocks."""

    weights: Array
    """Label (Hard, Soft, Unknown), width: of the hidden state divided by its root mean square."""
    biases: Array
    """Label."""
    layer: int
    """The block behind which the state is read, counted from 1; those above it need not be computed."""
    temperature: float
    """Of the logits, > 0."""
    model: str
    """Which model it was fitted on: `engines.local.loading.weights_identity`."""
    prompt: str
    """Which prompt: `prompt_hash`."""
    overlap: int
    """How many of the names that it was fitted on are in the evaluation's reference."""

    @property
    def width(self) -> int:
        """Of the hidden state."""
        return int(self.weights.shape[1])


def write_readout(path: str, readout: ReadOut) -> None:
    """Write a read-out as safetensors, the same bytes for the same values."""
    tensors = {"weights": readout.weights, "biases": readout.biases}
    fields = {name: value for name, value in asdict(readout).items() if name not in tensors}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(save(tensors, metadata={FIELDS: json.dumps(fields, sort_keys=True)}))


def read_readout(path: str) -> ReadOut:
    """Read a read-out.

    Raises:
        InputError: there is none at that path, or the file holds something else.
    """
    if not Path(path).is_file():
        raise InputError(f"model.readout {path}: no such file; `python -m hardsoft.readout fit` writes one")
    try:
        with safe_open(path, framework="numpy") as file:
            fields: dict[str, Any] = json.loads((file.metadata() or {})[FIELDS])
            readout = ReadOut(weights=file.get_tensor("weights"), biases=file.get_tensor("biases"), **fields)
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise InputError(f"model.readout {path}: is no read-out; `python -m hardsoft.readout fit` writes one") from None
    if readout.weights.ndim != 2 or len(readout.weights) != 3 or readout.biases.shape != (3,):
        raise InputError(f"model.readout {path}: is no read-out of three labels")
    return readout


def prompt_hash(chat: Chat) -> str:
    """What tells a prompt from others: a hash of its chat about a name that is no skill."""
    return hashlib.sha256(json.dumps(chat, ensure_ascii=False).encode()).hexdigest()[:16]


NO_SKILL = "N/A"
"""The name that `prompt_hash` is to be given a chat about."""
