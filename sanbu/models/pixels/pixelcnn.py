"""Gated PixelCNN: p(x) = prod p(pixel | pixels above and left), causal convolutions (van den Oord and others, 2016b).

Two stacks: the vertical stack depends on all rows above; the horizontal stack on the pixels to the left and on the
vertical stack. The input is shifted by one pixel and later layers pad on one side, so no weight needs a mask. Drawing
caches the last rows of the vertical stack and the last columns of the horizontal one, so the cost of a pixel does not
depend on the size of the picture. Shapes: B rows of the batch, C channels, H, W, D features, K kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.pixel_distributions import Categorical, Logistics
from sanbu.models.model import PictureConfig, one_picture
from sanbu.space import Space


def gate(x: Tensor) -> Tensor:
    """tanh of one half of the features times the sigmoid of the other; features are axis 1."""
    first, second = x.chunk(2, 1)
    return first.tanh() * second.sigmoid()


def entrance(levels_BCHW: Tensor, levels: int) -> Tensor:
    """Levels scaled to -1 ... 1, and a plane of ones that marks the picture, as opposed to its padding."""
    unit = levels_BCHW.float() * (2 / (levels - 1)) - 1
    return torch.cat((unit, torch.ones_like(unit[:, :1])), 1)


class GatedLayer(nn.Module):
    """One layer of both stacks."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.told = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, v_BDHW: Tensor, h_BDHW: Tensor, label_BD: Tensor) -> tuple[Tensor, Tensor]:
        told_v, told_h = self.told(label_BD)[..., None, None].chunk(2, 1)
        above = self.vertical(F.pad(v_BDHW, (self.reach, self.reach, self.reach, 0)))
        left = self.horizontal(F.pad(h_BDHW, (self.reach, 0)))
        gated = gate(left + self.link(above) + told_h)
        return gate(above + told_v), h_BDHW + self.out(self.dropout(gated))


@dataclass
class ConvCache:
    """rows: last rows of the vertical stack, padded. line: row of the horizontal stack. told: input from above."""

    rows: Tensor
    line: Tensor
    told: Tensor


@dataclass
class Cache:
    """The state of drawing: a cache per layer, and the features of the pixel being drawn."""

    layers: list[ConvCache]
    features: Tensor


class PixelCNN(PictureConfig):
    """Gated PixelCNN; with components > 0, the mixture of logistics of PixelCNN++."""

    kind: Literal["pixelcnn"] = "pixelcnn"
    family: ClassVar[str] = "pixels"
    kernel: int = Field(3, ge=3, description="side of the causal convolutions, odd")
    components: int = Field(
        0, ge=0, description="components of the mixture of logistics per level; 0 is a softmax over levels"
    )
    dropout: float = Field(0.0, ge=0, lt=1)

    def check(self, space: Space) -> None:
        super().check(space)
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, but it must be odd")

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.long(), label

    def build(self, space: Space) -> nn.Module:
        return PixelCNNNetwork(self, space)


class PixelCNNNetwork(nn.Module):
    """levels and label -> log p of each level given the levels before it."""

    blocks: Any

    def __init__(self, config: PixelCNN, space: Space) -> None:
        super().__init__()
        channels, self.height, self.width = space.shape
        self.levels, self.reach = space.vocabulary, config.kernel // 2 + 1
        width, reach = config.width, self.reach
        self.label = nn.Embedding(space.classes + 1, width)
        self.above = nn.Conv2d(channels + 1, width, (reach, 2 * reach - 1))
        self.left = nn.Conv2d(channels + 1, width, (1, reach))
        self.place = nn.Parameter(torch.zeros(width, self.height, self.width))
        self.blocks = nn.ModuleList(GatedLayer(width, config.kernel, config.dropout) for _ in range(config.layers))
        self.mix = nn.Conv2d(width, width, 1)
        self.output = (
            Logistics(width, channels, self.levels, config.components)
            if config.components
            else Categorical(width, channels, self.levels)
        )

    def forward(self, levels_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """log p(x_chw | all levels before), in nats, [B, C, H, W]; order: rows, columns, channels."""
        features_BHWD = self.features(levels_BCHW, label_B)
        return self.output(features_BHWD, levels_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def features(self, levels_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """The features from which the output layer computes each pixel, [B, H, W, D]."""
        x, reach = entrance(levels_BCHW, self.levels), self.reach
        label_BD = self.label(label_B)
        above = F.pad(x[:, :, :-1], (reach - 1, reach - 1, reach, 0))
        v = self.above(above)
        h = self.left(F.pad(x[..., :-1], (reach, 0))) + self.place
        for block in self.blocks:
            v, h = block(v, h, label_BD)
        return F.silu(self.mix(h)).permute(0, 2, 3, 1)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def cache(self, rows: int) -> Cache:
        """An empty cache for `rows` pictures."""
        weight = self.left.weight
        layers = []
        for block in self.blocks:
            width, reach = weight.shape[0], block.reach
            above = weight.new_zeros(rows, width, reach + 1, self.width + 2 * reach)
            line = weight.new_zeros(rows, width, self.width + reach)
            layers.append(ConvCache(above, line, weight.new_zeros(rows, 2 * width, self.width)))
        return Cache(layers, weight.new_zeros(rows, weight.shape[0]))

    def next(self, levels_BCHW: Tensor, label_B: Tensor, index: int, cache: Cache) -> Tensor:
        """Logits [B, K] of level number `index`, given the levels before it. Must be called in order."""
        place, channel = divmod(index, levels_BCHW.shape[1])
        row, column = divmod(place, self.width)
        if channel == 0:
            if column == 0:
                self._begin_row(levels_BCHW, label_B, row, cache)
            cache.features = self._pixel(levels_BCHW, row, column, cache)
        return self.output.logits(cache.features, levels_BCHW[:, :, row, column], channel)

    def _begin_row(self, levels_BCHW: Tensor, label_B: Tensor, row: int, cache: Cache) -> None:
        """Move the vertical stack down one row."""
        reach, label_BD = self.reach, self.label(label_B)
        seen = entrance(levels_BCHW[:, :, max(0, row - reach) : row], self.levels)
        missing = reach - seen.shape[2]
        v = self.above(F.pad(seen, (reach - 1, reach - 1, missing, 0)))
        for block, kept in zip(self.blocks, cache.layers, strict=True):
            told_v, told_h = block.told(label_BD)[..., None, None].chunk(2, 1)
            newest = F.pad(v, (block.reach, block.reach))
            kept.rows = torch.cat((kept.rows[:, :, 1:], newest), 2)
            above = block.vertical(kept.rows)
            linked = (block.link(above) + told_h)[:, :, 0]
            kept.told = linked + block.horizontal.bias[:, None]
            v = gate(above + told_v)

    def _pixel(self, levels_BCHW: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        """Move the horizontal stack right by one pixel."""
        first = max(0, column - self.reach)
        before = levels_BCHW[:, :, row : row + 1, first:column]
        seen = entrance(before, self.levels)[:, :, 0]
        seen = F.pad(seen, (self.reach - seen.shape[2], 0)).flatten(1)
        h = F.linear(seen, self.left.weight.flatten(1), self.left.bias)
        h = h + self.place[:, row, column]
        for block, kept in zip(self.blocks, cache.layers, strict=True):
            kept.line[:, :, column + block.reach] = h
            left = matrix(kept.line[:, :, column : column + block.reach + 1], block.horizontal)
            gated = gate(left + kept.told[:, :, column])
            h = h + F.linear(gated, block.out.weight.flatten(1), block.out.bias)
        return F.silu(F.linear(h, self.mix.weight.flatten(1), self.mix.bias))


def matrix(window_BDK: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A convolution at one position as a matrix product, without its bias."""
    return F.linear(window_BDK.flatten(1), convolution.weight.flatten(1))
