"""What sequences have in common. Knows nothing of what is in them."""

from collections.abc import Sequence
from typing import Any


def common_prefix(sequences: Sequence[Any]) -> int:
    """How many first items all sequences share: at least one, all texts or all lists of numbers."""
    first, last = min(sequences), max(sequences)  # of sorted ones, these two share least
    pairs = zip(first, last, strict=False)
    return next((place for place, (item, other) in enumerate(pairs) if item != other), min(len(first), len(last)))
