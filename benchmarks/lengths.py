"""Completion lengths of a published run of Llama 3.1 8B, whose reasoning is longer and more uneven than the tiny model's."""

import hashlib

import numpy as np

from hardsoft.core.chat import Chat

SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)
TOKENS = (40, 52, 56, 59, 63, 67, 75, 85, 101, 134, 150, 150)
"""Quantiles of those lengths: mean 79 tokens, median 67, 5 % at the limit of 150."""


def study_length(chat: Chat) -> int:
    """A length drawn from that distribution; the same chat always gets the same."""
    digest = hashlib.sha256(chat[1]["content"].encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return round(float(np.interp(share, SHARES, TOKENS)))
