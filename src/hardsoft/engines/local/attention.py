"""Attention over one prefix that all rows share and over each row's own keys.

The prefix's keys are read by all rows in one matrix product (the idea of Hydragen, arXiv 2402.05099). Knows nothing of rows that
come and go.
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
    # Query heads that share a key head side by side: [kv_heads, rows, heads per kv head * length, dim].
    query = (query * scaling).reshape(rows, kv_heads, -1, dim).transpose(0, 1)
    scores = (query @ key.transpose(2, 3)).view(kv_heads, rows, -1, length, own) + attention_mask
    scores = scores.view(kv_heads, rows, -1, own)
    if prefix is None:
        output = scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ value
    else:
        prefix_key, prefix_value = prefix.layers[module.layer_idx]  # type: ignore[index]
        merged = query.reshape(kv_heads, -1, dim)
        shared = (merged @ prefix_key[:, 0].transpose(1, 2)).view(kv_heads, rows, scores.shape[2], -1)
        weights = torch.cat([shared, scores], -1).softmax(-1, dtype=torch.float32).to(query.dtype)
        to_prefix, to_own = weights.split([shared.shape[3], own], -1)
        output = to_own @ value + (to_prefix.reshape(kv_heads, merged.shape[1], -1) @ prefix_value[:, 0]).view_as(query)
    output = output.view(kv_heads, rows, -1, length, dim).permute(1, 3, 0, 2, 4)
    return output.reshape(rows, length, heads, dim), None


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
