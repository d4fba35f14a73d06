"""Attention over one prefix that all rows share and over each row's own keys.

The prefix's keys are read by all rows at once (the idea of Hydragen, arXiv 2402.05099), and the two parts are merged by the sums
that their kernels return beside them. Knows nothing of rows that come and go.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from hardsoft.engines.local.cache import KeyValues

ATTENTION = "shared_prefix"


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    prefix: KeyValues | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention over one prefix that all rows share and over each row's own keys.

    Args:
        query: [rows, heads, length, dim].
        key, value: [kv_heads, rows, own, dim], as `KeyValues` and `Slots` give them.
        attention_mask: added to the own scores, [rows or 1, 1, length, own].
        prefix: its keys and values, [kv_heads, 1, prefix, dim] per layer.

    Returns:
        [rows, length, heads, dim], and no weights.

    Raises:
        NotImplementedError: the model's attention does more than scaled dot products (a window, a soft cap, sinks).
    """
    rows, heads, length, dim = query.shape
    kv_heads, own = key.shape[0], key.shape[2]
    seen = own + (prefix.length if prefix else 0)
    if (options.get("sliding_window") or seen) < seen:
        raise NotImplementedError("shared_prefix_attention sees every token, not a sliding window")
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise NotImplementedError(f"shared_prefix_attention has no {name}")
    # Query heads that share a key head side by side: [rows, kv_heads, heads per kv head * length, dim].
    query = query.reshape(rows, kv_heads, -1, dim)
    mask = attention_mask.to(query.dtype).unsqueeze(2).expand(rows, 1, heads // kv_heads, length, own)
    output, weight = attend(query, key.transpose(0, 1), value.transpose(0, 1), scaling, mask.reshape(rows, 1, -1, own))
    if prefix is not None:
        prefix_key, prefix_value = prefix.layers[module.layer_idx]  # type: ignore[index]
        merged = query.transpose(0, 1).reshape(1, kv_heads, -1, dim)
        shared, shared_weight = attend(merged, prefix_key.transpose(0, 1), prefix_value.transpose(0, 1), scaling)
        shared, shared_weight = (part.unflatten(2, (rows, -1))[0].transpose(0, 1) for part in (shared, shared_weight))
        output = torch.lerp(output, shared, (shared_weight - weight).sigmoid().to(output.dtype)[..., None])
    output = output.unflatten(2, (-1, length)).permute(0, 3, 1, 2, 4)
    return output.reshape(rows, length, heads, dim), None


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention by PyTorch's fused kernels, with what its public function keeps to itself.

    Args:
        query, key, value: [batch, heads, length, dim], of two lengths.
        mask: added to the scores, [batch, 1, length of queries, length of keys].

    Returns:
        [batch, heads, length, dim], and the logarithm of the scores' summed exponentials [batch, heads, length] in float32. The
        attention over two sets of keys is the mean of the attentions over each, weighted by these sums (FlashAttention, arXiv
        2205.14135).
    """
    if not query.is_cuda:
        cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, weight = cpu(query, key, value, attn_mask=mask, scale=scaling)
        return output, weight
    if mask is not None:
        seen = mask.shape[-1]
        if seen % 8:  # rows of a mask must begin at multiples of 16 bytes
            mask = torch.nn.functional.pad(mask, (0, -seen % 8))[..., :seen]
        mask = mask.expand(-1, query.shape[1], -1, -1)
    cuda = torch.ops.aten._scaled_dot_product_efficient_attention
    output, weight, _, _ = cuda(query, key, value, mask, True, scale=scaling)
    return output, weight[..., : query.shape[2]]


AttentionInterface.register(ATTENTION, shared_prefix_attention)


@contextmanager
def shared_prefix(network: PreTrainedModel) -> Iterator[None]:
    """Within this context the network's attention is `shared_prefix_attention`.

    Raises:
        NotImplementedError: the architecture's attention cannot be replaced.
    """
    before = network.config._attn_implementation
    if not network._supports_attention_backend:
        raise NotImplementedError(f"{type(network).__name__} takes no other attention")
    network.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        network.set_attn_implementation(before)
