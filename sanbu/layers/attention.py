"""Attention, attention patterns (masks), and the KV cache.

Attention(q, k, v) = softmax(q k^T / sqrt(H)) v (Vaswani and others, 2017); grouped queries share keys (Ainslie and
others, 2023). Shapes: B batch, T queries, S keys, N heads, H head width, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pattern = Callable[[Tensor, Tensor], Tensor]


def causal(queries: Tensor, keys: Tensor) -> Tensor:
    """Causal: each position attends to itself and to earlier ones. Positions broadcast; returns bool."""
    return keys <= queries


def band(width: int) -> Pattern:
    """Causal and local: a position attends to the last `width` positions, itself included (Child and others, 2019)."""

    def pattern(queries: Tensor, keys: Tensor) -> Tensor:
        return (keys <= queries) & (keys > queries - width)

    return pattern


class LayerCache(Protocol):
    """The KV cache of one layer: contiguous here, paged in the serving engine."""

    def see(self, positions_BT: Tensor, patterns: set[Pattern]) -> Sight:
        """The positions and masks for queries at these positions."""

    def attend(
        self, q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor, sight: Sight, pattern: Pattern, grouped: bool
    ) -> Tensor:
        """Append the new keys and values and return y_BNTH, the attention over all of them."""


@dataclass
class KeyValues:
    """The keys and values of one layer, [B, N, S, H] each; slot = position. Modified in place."""

    keys: Tensor
    values: Tensor

    def first(self, slots: int) -> KeyValues:
        """A view of the first `slots` slots, to read less memory."""
        return KeyValues(self.keys[:, :, :slots], self.values[:, :, :slots])

    def write(self, positions_BT: Tensor, keys_BNTH: Tensor, values_BNTH: Tensor) -> None:
        """Write the new keys and values of each row into its slots."""
        rows = torch.arange(positions_BT.shape[0], device=positions_BT.device)[:, None]
        self.keys[rows, :, positions_BT] = keys_BNTH.transpose(1, 2).to(self.keys.dtype)
        self.values[rows, :, positions_BT] = values_BNTH.transpose(1, 2).to(self.values.dtype)

    def see(self, positions_BT: Tensor, patterns: set[Pattern]) -> Sight:
        """A mask for each pattern over the slots."""
        slots = torch.arange(self.keys.shape[2], device=positions_BT.device)
        return Sight(positions_BT, {pattern: pattern(positions_BT[:, None, :, None], slots) for pattern in patterns})

    def attend(
        self, q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor, sight: Sight, pattern: Pattern, grouped: bool
    ) -> Tensor:
        """Attention over the slots, the new ones included."""
        self.write(sight.positions_BT, k_BNTH, v_BNTH)
        mask = sight.masks[pattern]
        return F.scaled_dot_product_attention(q_BNTH, self.keys, self.values, attn_mask=mask, enable_gqa=grouped)


@dataclass
class Sight:
    """Positions, and a mask per attention pattern (None: plain causal)."""

    positions_BT: Tensor
    masks: dict[Pattern, Tensor | None]


class Attention(nn.Module):
    """Multi-head attention with separate projections.

    pattern: which positions a query attends to. rotate(x_BTNH, positions_BT): rotary positions, or None.
    normalise(x_BTNH): a norm of queries and keys, or None. Head counts follow from the local widths, so a shard of
    heads works alone.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        key_heads: int,
        bias: bool,
        pattern: Pattern = causal,
        rotate: Callable[[Tensor, Tensor], Tensor] | None = None,
        normalise: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query = nn.Linear(width, heads * self.head_width, bias)
        self.key = nn.Linear(width, key_heads * self.head_width, bias)
        self.value = nn.Linear(width, key_heads * self.head_width, bias)
        self.out = nn.Linear(heads * self.head_width, width, bias)
        self.grouped = heads != key_heads
        self.pattern, self.rotate, self.normalise, self.dropout = pattern, rotate, normalise, dropout

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        q, k, v = (self._heads(project(x_BTD)) for project in (self.query, self.key, self.value))
        if self.normalise is not None:
            q, k = self.normalise(q), self.normalise(k)
        if self.rotate is not None:
            q, k = self.rotate(q, sight.positions_BT), self.rotate(k, sight.positions_BT)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            return self._out(cache.attend(q, k, v, sight, self.pattern, self.grouped))
        mask = sight.masks[self.pattern]
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, enable_gqa=self.grouped
        )
        return self._out(y)

    def _out(self, y_BNTH: Tensor) -> Tensor:
        return self.out(y_BNTH.transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_width))
