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
Norm = Callable[[Tensor], Tensor]


def causal(queries: Tensor, keys: Tensor) -> Tensor:
    """Causal: each position attends to itself and to earlier ones. Positions broadcast; returns bool."""
    return keys <= queries


def band(width: int) -> Pattern:
    """Causal and local: a position attends to the last `width` positions, itself included (Child and others, 2019)."""

    def pattern(queries: Tensor, keys: Tensor) -> Tensor:
        return (keys <= queries) & (keys > queries - width)

    return pattern


class Product(Protocol):
    """softmax(q k^T) v. mask: bool, True where a query attends; None is causal. scale of q k^T: None is 1/sqrt(H)."""

    def __call__(
        self, q_BNTH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, mask: Tensor | None, dropout: float, scale: float | None
    ) -> Tensor:
        """y_BNTH."""


def dot_product(
    q_BNTH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, mask: Tensor | None, dropout: float, scale: float | None
) -> Tensor:
    """Attention by the fused kernels of torch, in bfloat16 where the keys come from a cache of that type.

    Where gradients are wanted, a CPU computes it in float32: its bfloat16 kernel has a slow backward pass.
    """
    half = torch.bfloat16
    if k_BNSH.dtype == half != q_BNTH.dtype:
        return dot_product(q_BNTH.to(half), k_BNSH, v_BNSH, mask, dropout, scale).to(q_BNTH.dtype)
    exact = k_BNSH.dtype != half or torch.is_grad_enabled()
    if q_BNTH.dtype == half and q_BNTH.device.type == "cpu" and exact:
        with torch.autocast("cpu", enabled=False):
            whole = (q_BNTH.float(), k_BNSH.float(), v_BNSH.float())
            return dot_product(*whole, mask, dropout, scale).to(v_BNSH.dtype)
    grouped, plain = q_BNTH.shape[1] != k_BNSH.shape[1], mask is None
    return F.scaled_dot_product_attention(
        q_BNTH, k_BNSH, v_BNSH, attn_mask=mask, dropout_p=dropout, is_causal=plain, scale=scale, enable_gqa=grouped
    )


def capped_product(cap: float) -> Product:
    """Attention whose scores are soft-capped, cap * tanh(score / cap), before the mask (Gemma 2, 2024)."""

    def product(
        q_BNTH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, mask: Tensor | None, dropout: float, scale: float | None
    ) -> Tensor:
        queries, keys = q_BNTH.shape[1], k_BNSH.shape[1]
        k, v = (tensor.to(q_BNTH.dtype).repeat_interleave(queries // keys, 1) for tensor in (k_BNSH, v_BNSH))
        scores = q_BNTH @ k.transpose(2, 3) * (q_BNTH.shape[3] ** -0.5 if scale is None else scale)
        if mask is None:
            mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
        capped = (cap * torch.tanh(scores / cap)).masked_fill(~mask, -torch.inf)
        return F.dropout(capped.float().softmax(-1).to(v.dtype), dropout) @ v

    return product


class LayerCache(Protocol):
    """The KV cache of one layer: contiguous here, paged in the serving engine."""

    def see(self, positions_BT: Tensor, patterns: set[Pattern]) -> Sight:
        """The positions and masks for queries at these positions."""

    def attend(self, q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor, sight: Sight, attention: Attention) -> Tensor:
        """Append the new keys and values and return y_BNTH, the attention over all of them."""


@dataclass
class KeyValues:
    """The keys and values of one layer, [B, N, S, H] each; slot = position. Modified in place."""

    keys: Tensor
    values: Tensor

    def first(self, slots: int) -> KeyValues:
        """A view of the first `slots` slots, to read less memory."""
        return KeyValues(self.keys[:, :, :slots], self.values[:, :, :slots])

    def keep(self, rows: Tensor) -> KeyValues:
        """The keys and values of some rows."""
        return KeyValues(self.keys[rows], self.values[rows])

    def expect(self, reads_B: Tensor | None) -> None:
        """Nothing: what is written beyond the tokens of a row is overwritten before it is read."""

    def write(self, positions_BT: Tensor, keys_BNTH: Tensor, values_BNTH: Tensor) -> None:
        """Write the new keys and values of each row into its slots."""
        rows = torch.arange(positions_BT.shape[0], device=positions_BT.device)[:, None]
        self.keys[rows, :, positions_BT] = keys_BNTH.transpose(1, 2).to(self.keys.dtype)
        self.values[rows, :, positions_BT] = values_BNTH.transpose(1, 2).to(self.values.dtype)

    def see(self, positions_BT: Tensor, patterns: set[Pattern]) -> Sight:
        """A mask for each pattern over the slots."""
        slots = torch.arange(self.keys.shape[2], device=positions_BT.device)
        return Sight(positions_BT, {pattern: pattern(positions_BT[:, None, :, None], slots) for pattern in patterns})

    def attend(self, q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor, sight: Sight, attention: Attention) -> Tensor:
        """Attention over the slots, the new ones included."""
        self.write(sight.positions_BT, k_BNTH, v_BNTH)
        mask = sight.masks[attention.pattern]
        return attention.product(q_BNTH, self.keys, self.values, mask, 0.0, attention.scale)


@dataclass
class Sight:
    """Positions, and a mask per attention pattern (None: plain causal)."""

    positions_BT: Tensor
    masks: dict[Pattern, Tensor | None]


class Attention(nn.Module):
    """Multi-head attention with separate projections.

    pattern: which positions a query attends to. rotate(x_BTNH, positions_BT): rotary positions, or None. norms: of
    queries and of keys, x_BTNH each, or None. head_width: None is width / heads. out_bias: None is as `bias`. scale:
    see Product. Head counts follow from the local widths, so a shard of heads works alone.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        key_heads: int,
        bias: bool,
        pattern: Pattern = causal,
        rotate: Callable[[Tensor, Tensor], Tensor] | None = None,
        norms: tuple[Norm, Norm] | None = None,
        dropout: float = 0.0,
        head_width: int | None = None,
        out_bias: bool | None = None,
        scale: float | None = None,
        product: Product = dot_product,
    ) -> None:
        super().__init__()
        self.head_width = head_width or width // heads
        self.query = nn.Linear(width, heads * self.head_width, bias)
        self.key = nn.Linear(width, key_heads * self.head_width, bias)
        self.value = nn.Linear(width, key_heads * self.head_width, bias)
        self.out = nn.Linear(heads * self.head_width, width, bias if out_bias is None else out_bias)
        self.query_norm: Norm | None = norms[0] if norms else None
        self.key_norm: Norm | None = norms[1] if norms else None
        self.pattern, self.rotate, self.dropout = pattern, rotate, dropout
        self.scale, self.product = scale, product

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        q, k, v = (self._heads(project(x_BTD)) for project in (self.query, self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if self.rotate is not None:
            q, k = self.rotate(q, sight.positions_BT), self.rotate(k, sight.positions_BT)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            return self._out(cache.attend(q, k, v, sight, self))
        dropout = self.dropout if self.training else 0.0
        return self._out(self.product(q, k, v, sight.masks[self.pattern], dropout, self.scale))

    def _out(self, y_BNTH: Tensor) -> Tensor:
        return self.out(y_BNTH.transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_width))
