"""Context parallelism of transformers: each rank has a part of the positions of a row.

Between layers, activations are divided by position. For attention they are exchanged, so that a rank has all positions
of some of the heads, and exchanged back (Ulysses; Jacobs and others, 2023). The readout gets all positions in every
rank; the denominators count them as often, so the sums over ranks are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.layers.attention import Product, Sight
from sanbu.models.tokens.transformer import Decoder, logits, see
from sanbu.noise import key
from sanbu.parallel.world import World


def divide_positions(world: World, model: nn.Module) -> None:
    """Divide the positions of every transformer in a model, in place. Raises SanbuError for what has no plan."""
    ranks = world.degrees.context
    decoders = [module for module in model.modules() if isinstance(module, Decoder)]
    if not decoders:
        raise SanbuError(f"layout.context: given {ranks}, but {type(model).__name__} is no transformer; allowed: 1")
    for decoder in decoders:
        for name, block in decoder.blocks.items():
            attention = block.attention
            for heads in {each.out_features // attention.head_width for each in (attention.query, attention.key)}:
                if heads % ranks:
                    raise SanbuError(
                        f"layout.context: given {ranks}, but layer {name} has {heads} heads; allowed: a divisor"
                    )
            attention.product = by_heads(attention.product, group_of(world))
        decoder.forward = ByPosition(world, decoder, decoder.forward)  # type: ignore[method-assign]


def group_of(world: World) -> dist.ProcessGroup:
    """The ranks with other positions of the same rows."""
    assert world.context is not None
    return world.context


@dataclass(frozen=True)
class AllPositions:
    """A mask over all positions of a row (None: causal), for queries and keys that are those of one rank."""

    mask: Tensor | None


def by_heads(product: Product, group: dist.ProcessGroup) -> Product:
    """Attention over all positions of some heads, from some positions of all heads; other masks as they are."""

    def exchanged(
        q_BNTH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, mask: Any, dropout: float, scale: float | None
    ) -> Tensor:
        if not isinstance(mask, AllPositions):
            return product(q_BNTH, k_BNSH, v_BNSH, mask, dropout, scale)
        q, k, v = (Exchange.apply(each, group, 1, 2) for each in (q_BNTH, k_BNSH, v_BNSH))
        y: Tensor = Exchange.apply(product(q, k, v, mask.mask, dropout, scale), group, 2, 1)
        return y

    return exchanged


class ByPosition:
    """The forward pass of a decoder on this rank's positions; whole where they cannot be divided, or with a cache."""

    def __init__(self, world: World, decoder: Decoder, whole: Callable[..., Tensor]) -> None:
        self.world, self.decoder, self.whole = world, decoder, whole

    def __call__(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[Any] | None = None,
        readout: Callable[..., Tensor] = logits,
    ) -> Tensor:
        decoder, ranks, rank = self.decoder, self.world.degrees.context, self.world.place.context
        length = tokens_BT.shape[1]
        if cache is not None or length % ranks:
            return self.whole(tokens_BT, positions_BT, cache, readout)
        if decoder.training:
            torch.manual_seed(key(torch.initial_seed(), "context", rank))
        own = slice(rank * length // ranks, (rank + 1) * length // ranks)
        sight = see({block.attention.pattern for block in decoder.blocks.values()}, tokens_BT, positions_BT, None)
        masks: Any = {pattern: AllPositions(mask) for pattern, mask in sight.masks.items()}
        part = Sight(sight.positions_BT[:, own], masks)
        x_BTD = decoder.embedding(tokens_BT[:, own], part.positions_BT)
        for block in decoder.blocks.values():
            x_BTD = block(x_BTD, part, None)
        hidden = Gather.apply(decoder.norm(x_BTD), group_of(self.world))
        return readout(decoder.head, hidden)


class Exchange(torch.autograd.Function):
    """Divide one axis over the ranks and join another; backward is the same with the axes changed over."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, group: dist.ProcessGroup, divided: int, joined: int) -> Tensor:
        context.group, context.axes = group, (divided, joined)
        return exchange(tensor, group, divided, joined)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        divided, joined = context.axes
        return exchange(gradient, context.group, joined, divided), None, None, None


def exchange(tensor: Tensor, group: dist.ProcessGroup, divided: int, joined: int) -> Tensor:
    """All-to-all: part r of one axis goes to rank r; what comes is joined along another axis."""
    sent = torch.stack(tensor.chunk(dist.get_world_size(group), divided)).contiguous()
    found = torch.empty_like(sent)
    dist.all_to_all_single(found, sent, group=group)
    return torch.cat(list(found.unbind()), joined)


class Gather(torch.autograd.Function):
    """All positions [B, T, D] from those of each rank; backward sums what each rank says of a position."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        context.group = group
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, tensor.contiguous(), group=group)
        return torch.cat(parts, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=context.group)
        return total.chunk(dist.get_world_size(context.group), 1)[dist.get_rank(context.group)], None
