"""Paged KV cache, and attention over requests of different lengths in one forward pass.

All tokens of a step form one row of length T, which the linear layers process at once. Attention is computed per
group: requests with the same number of queries and similar block counts. N heads, H head width, S slots, B requests
of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sanbu.layers.attention import Attention, Pattern, Sight
from sanbu.models.tokens.transformer import Decoder


@dataclass
class Group:
    """B requests with t queries each, at start .. start + B t - 1 of the row; slots_BS: slots of their keys."""

    start: int
    queries: int
    slots: Tensor
    positions: Tensor  # [B, t]

    @property
    def end(self) -> int:
        return self.start + self.positions.numel()

    def to(self, device: torch.device) -> Group:
        """The same on a device."""
        return Group(self.start, self.queries, self.slots.to(device), self.positions.to(device))


@dataclass
class Layout:
    """Where the tokens of a step go, slots_T, and the groups that attend together."""

    slots: Tensor
    groups: Sequence[Group]

    def to(self, device: torch.device) -> Layout:
        """The same on a device."""
        return Layout(self.slots.to(device), [group.to(device) for group in self.groups])


class PagedLayer:
    """The keys and values of one layer, [slots, N, H] each; `layout` is set before each step."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.layout = Layout(torch.zeros(0, dtype=torch.long), ())
        self.masks: dict[Pattern, list[Tensor]] = {}

    def see(self, positions_BT: Tensor, patterns: set[Pattern]) -> Sight:
        """Compute one mask per group and pattern; all layers share them."""
        self.masks.clear()
        for pattern in patterns:
            self.masks[pattern] = [
                pattern(
                    group.positions[:, None, :, None], torch.arange(group.slots.shape[1], device=positions_BT.device)
                )
                for group in self.layout.groups
            ]
        return Sight(positions_BT, {})

    def attend(self, q_1NTH: Tensor, k_1NTH: Tensor, v_1NTH: Tensor, sight: Sight, attention: Attention) -> Tensor:
        """Write the new keys and values to the cache, then attend group by group over the requests' own blocks."""
        self.keys[self.layout.slots] = k_1NTH[0].transpose(0, 1).to(self.keys.dtype)
        self.values[self.layout.slots] = v_1NTH[0].transpose(0, 1).to(self.values.dtype)
        parts = []
        for group, mask in zip(self.layout.groups, self.masks[attention.pattern], strict=True):
            q_BNtH = q_1NTH[0, :, group.start : group.end].unflatten(1, (-1, group.queries)).transpose(0, 1)
            keys, values = gather(self.keys, group.slots), gather(self.values, group.slots)
            y_BNtH = attention.product(q_BNtH, keys, values, mask, 0.0, attention.scale)
            parts.append(y_BNtH.transpose(0, 1).flatten(1, 2))
        return torch.cat(parts, 1)[None]


def gather(cache_SNH: Tensor, slots_BS: Tensor) -> Tensor:
    """The cache entries of the slots, BNSH; index_select copies whole rows, which is faster than indexing."""
    return cache_SNH.index_select(0, slots_BS.flatten()).unflatten(0, slots_BS.shape).transpose(1, 2)


class PagedCache(list[PagedLayer]):
    """The paged cache of every layer of a decoder."""

    def __init__(self, model: Decoder, blocks: int, size: int) -> None:
        masks: dict[Pattern, list[Tensor]] = {}
        for layer in model.cache(1, 1):
            _, heads, _, width = layer.keys.shape
            shape = (blocks * size, heads, width)
            self.append(PagedLayer(layer.keys.new_zeros(shape), layer.keys.new_zeros(shape)))
            self[-1].masks = masks

    def arrange(self, layout: Layout) -> None:
        """Set the layout of the next step."""
        for layer in self:
            layer.layout = layout
