"""Linear layers of fp32 models on a CPU, with weights packed once for oneDNN.

Plain `torch.nn.functional.linear` hands fp32 to MKL, which on AMD processors reaches half of what oneDNN does. These are the
operators that `torch.compile` uses for the same purpose ("freezing"), called directly since compiling gains nothing else here.
"""

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """What a `torch.nn.Linear` computes; the weights live in oneDNN's own layout only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._weight, self._bias, "none", [], "")
        return output


def pack_linears(network: nn.Module, but: nn.Module | None = None) -> None:
    """Replace the fp32 linear layers of a network on a CPU, in place; others, such as bitsandbytes' own, stay as they are.

    Args:
        but: a layer that stays, too.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for name, module in list(network.named_children()):
        if module is but:
            continue
        if type(module) is nn.Linear and module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            setattr(network, name, PackedLinear(module))
        else:
            pack_linears(module, but)
