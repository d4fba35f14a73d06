"""Keys and values: of one forward pass, and of the rows being decoded.

A *row* is a prompt of the batch, a *slot* a line of the cache that one row after another lives in, a *position* a place in a
row's sequence. Knows nothing of where tokens come from or when a row ends.
"""

import torch
from torch import Tensor


class KeyValues:
    """Collects each layer's keys and values, [kv_heads, rows, length, dim], from one forward pass."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2]

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with [rows, kv_heads, length, dim]; returns what its queries shall see."""
        self.layers.append((key.transpose(0, 1), value.transpose(0, 1)))
        return self.layers[layer_idx]


class Slots:
    """Keys and values of the rows being decoded, a slot each: [kv_heads, slots, width, dim] per layer."""

    def __init__(self, like: KeyValues) -> None:
        """No slot yet; `like` tells the number of layers, heads and dimensions."""
        self.layers = [(key[:, :0, :0].clone(), value[:, :0, :0].clone()) for key, value in like.layers]
        self.width = 0
        """Tokens that each slot has room for."""
        self.lengths = torch.zeros(0, dtype=torch.long, device=like.layers[0][0].device)
        """How many own tokens each slot holds."""
        self.last = torch.zeros_like(self.lengths)
        """Each slot's newest token, whose keys and values are not there yet."""

    @property
    def count(self) -> int:
        """Of slots."""
        return len(self.lengths)

    def make_room(self, count: int, width: int) -> None:
        """At least so many slots of at least so many tokens; what there is stays."""
        missing, width = max(0, count - self.count), max(width, self.width)
        if not missing and width == self.width:
            return

        def larger(tensor: Tensor) -> Tensor:
            heads, slots, _, dim = tensor.shape
            new = tensor.new_zeros(heads, slots + missing, width, dim)
            new[:, :slots, : self.width] = tensor
            return new

        for place, (keys, values) in enumerate(self.layers):
            self.layers[place] = larger(keys), larger(values)
        self.width = width
        self.lengths, self.last = (torch.cat([held, held.new_zeros(missing)]) for held in (self.lengths, self.last))

    def enter(self, slots: Tensor, filled: KeyValues, lengths: Tensor, tokens: Tensor) -> None:
        """Put prefilled rows [rows], their own lengths and the token that each has generated, into slots."""
        for (keys, values), (key, value) in zip(self.layers, filled.layers, strict=True):
            keys[:, slots, : filled.length] = key
            values[:, slots, : filled.length] = value
        self.lengths[slots] = lengths
        self.last[slots] = tokens

    def advance(self, counts: list[int], tokens: list[int]) -> None:
        """Each slot has so many more tokens, the newest of which is given."""
        device = self.lengths.device
        self.lengths = self.lengths + torch.tensor(counts, device=device)
        self.last = torch.tensor(tokens, device=device)

    def advance_by_one(self, tokens: Tensor) -> None:
        """Each slot has one more token, in place, so that a graph may do it; one that is full stays so."""
        self.lengths.add_(1).clamp_(max=self.width - 1)
        self.last.copy_(tokens)

    def keep(self, slots: list[int]) -> None:
        """Drop every other slot."""
        where = torch.tensor(slots, device=self.lengths.device)
        self.layers = [(keys[:, where], values[:, where]) for keys, values in self.layers]
        self.lengths, self.last = self.lengths[where], self.last[where]

    def before_step(self, positions: Tensor, longest: int) -> Tensor:
        """Prepare for tokens at positions [slots, new]; returns which of `longest` places each sees, [slots, new, longest]."""
        device = positions.device
        self._seen = longest
        self._places = (torch.arange(len(positions), device=device)[:, None] * self.width + positions).flatten()
        return torch.arange(longest, device=device) <= positions[:, :, None]

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with the slots' new keys and values; returns all up to the longest live row."""
        keys, values = self.layers[layer_idx]
        keys.flatten(1, 2).index_copy_(1, self._places, key.transpose(0, 1).flatten(1, 2))
        values.flatten(1, 2).index_copy_(1, self._places, value.transpose(0, 1).flatten(1, 2))
        return keys[:, :, : self._seen], values[:, :, : self._seen]
