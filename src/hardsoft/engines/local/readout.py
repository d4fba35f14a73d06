"""A network that ends in a read-out: what lies above its layer is cut off, and its outputs are the logits of the labels."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hardsoft.core.errors import InputError
from hardsoft.core.paths import NO_READOUT
from hardsoft.core.progress import note
from hardsoft.core.readouts import ReadOut


def decoder_of(network: PreTrainedModel) -> Any:
    """The part of a causal LM that has its blocks, `layers`, and the norm behind them, `norm`.

    Raises:
        InputError: the architecture names them otherwise.
    """
    decoder = network.get_decoder()
    if not isinstance(getattr(decoder, "layers", None), nn.ModuleList) or not hasattr(decoder, "norm"):
        raise InputError(
            f"{type(network).__name__}: a read-out needs blocks named `layers` and a `norm`; set model.readout={NO_READOUT}"
        )
    return decoder


def normalised(states: Tensor) -> Tensor:
    """Hidden states [..., width] divided by their root mean square, in float32: what RMSNorm does before its own weights."""
    states = states.float()
    return states / states.square().mean(-1, keepdim=True).sqrt()


class Head(nn.Module):
    """From hidden states to the logits of Hard, Soft and Unknown, divided by the read-out's temperature."""

    def __init__(self, readout: ReadOut, device: torch.device) -> None:
        super().__init__()
        self._weights = torch.tensor(readout.weights / readout.temperature, device=device)
        self._biases = torch.tensor(readout.biases / readout.temperature, device=device)

    def forward(self, states: Tensor) -> Tensor:
        return normalised(states) @ self._weights.T + self._biases


def end_in(network: PreTrainedModel, readout: ReadOut) -> None:
    """Cut a network off above a read-out's layer, in place, and let it return the labels' logits."""
    decoder = decoder_of(network)
    decoder.layers = decoder.layers[: readout.layer]
    decoder.norm = nn.Identity()
    network.set_output_embeddings(Head(readout, network.device))
    config = network.config.get_text_config()
    if getattr(config, "final_logit_softcapping", None) is not None:  # it would flatten the labels' logits as the words'
        config.final_logit_softcapping = None


def check_fits(readout: ReadOut, path: str, network: PreTrainedModel, model: str, prompt: str) -> None:
    """Raise InputError unless a read-out was fitted on a model; say so if it was on another prompt.

    Args:
        model, prompt: see `ReadOut`.
    """
    config = network.config.get_text_config()
    if readout.width != config.hidden_size or readout.layer > config.num_hidden_layers:
        raise InputError(
            f"model.readout {path}: is for a model of width {readout.width} and {readout.layer} layers or more, and this one has "
            f"{config.hidden_size} and {config.num_hidden_layers}; fit one for it, or set model.readout={NO_READOUT}"
        )
    if readout.model != model:
        raise InputError(
            f"model.readout {path}: was fitted on {readout.model}, and the model is {model}; fit one for it, or set "
            f"model.readout={NO_READOUT}"
        )
    if readout.prompt != prompt:
        note(f"model.readout {path} was fitted with another prompt than this one; fit it anew for labels as good", once=True)
