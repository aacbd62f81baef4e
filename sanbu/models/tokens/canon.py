"""A transformer with a short convolution before each attention and each perceptron: Canon layers (Allen-Zhu, 2025).

y_t = sum_j w_j * x_{t-j}, j = 0 .. k - 1, with a weight per channel. What stands just before a token reaches it without
attention, which is left to what is further away. Else it is `modern`. B batch, T time, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.attention import Attention, KeyValues, Pattern, Sight
from sanbu.layers.state import State, starts_within
from sanbu.models.tokens.convolution import ShortConvolution
from sanbu.models.tokens.modern import ModernConfig, modern, rms_norm
from sanbu.models.tokens.transformer import Decoder, Readout, keys_and_values, logits, see
from sanbu.space import Space


@dataclass
class BlockMemory:
    """What a block keeps: keys and values, and the last inputs of its two convolutions."""

    keys_values: KeyValues
    states: tuple[State, State]

    def first(self, slots: int) -> BlockMemory:
        """The keys and values of the first slots, and the states themselves."""
        return BlockMemory(self.keys_values.first(slots), self.states)

    def keep(self, rows: Tensor) -> BlockMemory:
        """What is kept of some rows."""
        first, second = self.states
        return BlockMemory(self.keys_values.keep(rows), (first.keep(rows), second.keep(rows)))

    def expect(self, reads_B: Tensor | None) -> None:
        """How many of the next tokens each row reads."""
        for state in self.states:
            state.expect(reads_B)

    def see(self, positions_BT: Tensor, patterns: set[Pattern]) -> Sight:
        """A mask for each pattern over the slots."""
        return self.keys_values.see(positions_BT, patterns)

    def attend(self, q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor, sight: Sight, attention: Attention) -> Tensor:
        """Attention over the slots, the new ones included."""
        return self.keys_values.attend(q_BNTH, k_BNTH, v_BNTH, sight, attention)


class CanonBlock(nn.Module):
    """x <- a x + f(convolution(norm(x))), for attention and then for the perceptron, with a learned scalar a each."""

    def __init__(self, attention: Attention, mlp: nn.Module, width: int, kernel: int) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.convolutions = nn.ModuleList(ShortConvolution(width, kernel) for _ in range(2))
        self.residual = nn.Parameter(torch.ones(2))

    def forward(self, x_BTD: Tensor, sight: Sight, starts_BT: Tensor | None, memory: BlockMemory | None) -> Tensor:
        before = (None, None) if memory is None else memory.states
        first, second = self.convolutions
        mixed_BTD = first(rms_norm(x_BTD), starts_BT, before[0])
        x_BTD = self.residual[0] * x_BTD + self.attention(mixed_BTD, sight, memory)
        return self.residual[1] * x_BTD + self.mlp(second(rms_norm(x_BTD), starts_BT, before[1]))


class Canon(ModernConfig):
    """`modern` with short convolutions before attention and perceptron."""

    kind: Literal["canon"] = "canon"
    kernel: int = Field(4, ge=2, description="tokens that a convolution sees")

    def build(self, space: Space) -> nn.Module:
        return CanonDecoder(modern(self, space), self)


class CanonDecoder(nn.Module):
    """The embedding, norm and head of a decoder, around blocks with convolutions."""

    def __init__(self, decoder: Decoder, config: Canon) -> None:
        super().__init__()
        self.context = decoder.context
        self.embedding: Any = decoder.embedding
        self.blocks: Any = nn.ModuleList(
            CanonBlock(block.attention, block.mlp, config.width, config.kernel) for block in decoder.blocks.values()
        )
        self.norm, self.head = decoder.norm, decoder.head

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[BlockMemory] | None = None,
        readout: Readout = logits,
    ) -> Tensor:
        """logits_BTV for tokens_BT, or whatever `readout(head, hidden_BTD)` makes; as in `Decoder`."""
        sight = see({block.attention.pattern for block in self.blocks}, tokens_BT, positions_BT, cache)
        starts_BT = starts_within(positions_BT) if cache is None else None
        x_BTD = self.embedding(tokens_BT, sight.positions_BT)
        for index, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, sight, starts_BT, None if cache is None else cache[index])
        return readout(self.head, self.norm(x_BTD))

    def cache(self, rows: int, slots: int) -> list[BlockMemory]:
        """What is kept of no tokens, for `rows` rows and `slots` positions."""
        like, made = self.embedding.tokens.weight, []
        for block in self.blocks:
            first, second = block.convolutions
            kept = keys_and_values(block.attention, like, rows, slots)
            made.append(BlockMemory(kept, (first.state(rows), second.state(rows))))
        return made
