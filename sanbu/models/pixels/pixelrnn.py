"""PixelRNN: a pixel depends on the rows above through recurrence (van den Oord and others, 2016a).

Row LSTM: the state depends on a convolution of the states of the row above; the first pixels of a row do not depend on
the last pixels of the row above, beyond the first convolution. Diagonal BiLSTM: one state depends on the left and
upper neighbours, the other on the right neighbour and, one row later, the upper one. In both a first convolution
excludes the pixel itself. Shapes: B rows of the batch, C channels, H, W, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.pixel_distributions import Categorical
from sanbu.models.model import PictureConfig, one_picture
from sanbu.models.pixels.pixelcnn import entrance, matrix
from sanbu.space import Space


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c from the four gates (Hochreiter and Schmidhuber, 1997); features are axis 1."""
    keep, write, show, new = gates.chunk(4, 1)
    c = keep.sigmoid() * c + write.sigmoid() * new.tanh()
    return show.sigmoid() * c.tanh(), c


@dataclass
class LineCache:
    """inputs: this row of the layer below, padded. h, c: states above and of this row. told: input from above."""

    inputs: Tensor
    h: Tensor
    c: Tensor
    told: Tensor
    line: dict[str, Tensor] = field(default_factory=dict)


class RowLSTM(PictureConfig):
    """PixelRNN with a Row LSTM: one row of states per step."""

    kind: Literal["row-lstm"] = "row-lstm"
    family: ClassVar[str] = "pixels"

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.long(), label

    def build(self, space: Space) -> nn.Module:
        return PixelRNNNetwork(self, space, RowLSTMLayer)


class RowLSTMLayer(nn.Module):
    """gates = conv(inputs to the left, this pixel included) + conv(the three states above)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Conv2d(width, 4 * width, (1, 2))
        self.states = nn.Conv1d(width, 4 * width, 3, padding=1, bias=False)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        gates = self.inputs(F.pad(x_BDHW, (1, 0)))
        h = c = torch.zeros_like(x_BDHW[:, :, 0])
        rows = []
        for row in range(x_BDHW.shape[2]):
            h, c = lstm(gates[:, :, row] + self.states(h), c)
            rows.append(h)
        return torch.stack(rows, 2)

    def cache(self, rows: int, width: int) -> LineCache:
        """The cache before the first row."""
        zeros = self.states.weight.new_zeros(rows, self.states.weight.shape[1], width)
        return LineCache(F.pad(zeros, (1, 0)), zeros, zeros.clone(), zeros)

    def begin_row(self, cache: LineCache) -> None:
        """Start a row, when the states of the row above are complete."""
        cache.told = self.states(cache.h)
        cache.h = torch.zeros_like(cache.h)

    def pixel(self, x_BD: Tensor, column: int, cache: LineCache) -> Tensor:
        """Compute one more state of this row."""
        cache.inputs[:, :, column + 1] = x_BD
        seen = cache.inputs[:, :, column : column + 2].flatten(1)
        gates = F.linear(seen, self.inputs.weight.flatten(1), self.inputs.bias)
        gates = gates + cache.told[:, :, column]
        h, c = lstm(gates, cache.c[:, :, column])
        cache.h[:, :, column], cache.c[:, :, column] = h, c
        return cache.h[:, :, column]


class Diagonal(nn.Module):
    """One direction: gates = inputs + U h(left) + V h(above), cell from the left; one diagonal per step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Conv2d(width, 4 * width, 1)
        self.left = nn.Linear(width, 4 * width, bias=False)
        self.above = nn.Linear(width, 4 * width, bias=False)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        B, D, H, W = x_BDHW.shape
        gates = skewed(self.inputs(x_BDHW))
        inside = skewed(torch.ones_like(x_BDHW[:1, :1]))
        h = c = x_BDHW.new_zeros(B, D, H)
        columns = []
        for place in range(H + W - 1):
            above = F.pad(h, (1, 0))[:, :, :-1]
            drive = self.left(h.transpose(1, 2)) + self.above(above.transpose(1, 2))
            h, c = lstm(gates[..., place] + drive.transpose(1, 2), c)
            h, c = h * inside[..., place], c * inside[..., place]
            columns.append(h)
        return straight(torch.stack(columns, 3), W)

    def step(self, x_BD: Tensor, left: tuple[Tensor, Tensor], above_h: Tensor) -> tuple[Tensor, Tensor]:
        """The states h and c of one pixel."""
        gates = (
            F.linear(x_BD, self.inputs.weight.flatten(1), self.inputs.bias) + self.left(left[0]) + self.above(above_h)
        )
        return lstm(gates, left[1])


def skewed(x_BDHW: Tensor) -> Tensor:
    """Row i shifted right by i pixels, so that a diagonal becomes a column."""
    height, width = x_BDHW.shape[2:]
    size = height * (width + height - 1)
    return F.pad(x_BDHW, (0, height)).flatten(2)[..., :size].unflatten(2, (height, -1))


def straight(x_BDHW: Tensor, width: int) -> Tensor:
    """The inverse of `skewed`."""
    height = x_BDHW.shape[2]
    return F.pad(x_BDHW.flatten(2), (0, height)).unflatten(2, (height, -1))[..., :width]


class DiagonalBiLSTM(PictureConfig):
    """PixelRNN with a Diagonal BiLSTM: each pixel depends on all pixels before it."""

    kind: Literal["diagonal-bilstm"] = "diagonal-bilstm"
    family: ClassVar[str] = "pixels"

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.long(), label

    def build(self, space: Space) -> nn.Module:
        return PixelRNNNetwork(self, space, DiagonalBiLSTMLayer)


class DiagonalBiLSTMLayer(nn.Module):
    """Two directions; the direction from the right is delayed by one row, so that it depends on no later pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.forth, self.back = Diagonal(width), Diagonal(width)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        back = self.back(x_BDHW.flip(3)).flip(3)
        return self.forth(x_BDHW) + F.pad(back, (0, 0, 1, 0))[:, :, :-1]

    def cache(self, rows: int, width: int) -> LineCache:
        """The cache before the first row."""
        zeros = self.forth.left.weight.new_zeros(rows, self.forth.left.weight.shape[1], width)
        return LineCache(
            zeros.clone(), zeros.clone(), zeros.clone(), zeros.clone(), {"back": zeros, "row": zeros[..., :0]}
        )

    def begin_row(self, cache: LineCache) -> None:
        """Start a row: run the direction from the right over the row above, which is complete."""
        if cache.line["row"].shape[2]:
            h, c = (torch.zeros_like(cache.h[..., 0]) for _ in range(2))
            walked = []
            for column in reversed(range(cache.inputs.shape[2])):
                above = cache.line["back"][..., column]
                h, c = self.back.step(cache.inputs[..., column], (h, c), above)
                walked.append(h)
            cache.line["back"] = torch.stack(walked[::-1], 2)
        cache.line["row"] = cache.inputs
        cache.told = cache.h.clone()

    def pixel(self, x_BD: Tensor, column: int, cache: LineCache) -> Tensor:
        """Compute one more state of this row, the sum of both directions."""
        cache.inputs[..., column] = x_BD
        zero = torch.zeros_like(x_BD)
        left = (zero, zero)
        if column:
            left = (cache.h[..., column - 1], cache.c[..., column - 1])
        h, c = self.forth.step(x_BD, left, cache.told[..., column])
        cache.h[..., column], cache.c[..., column] = h, c
        return cache.h[..., column] + cache.line["back"][..., column]


class PixelRNNNetwork(nn.Module):
    """levels and label -> log p of each level given the levels before it; `layer` makes the recurrent layers."""

    blocks: Any

    def __init__(self, config: RowLSTM | DiagonalBiLSTM, space: Space, layer: Any) -> None:
        super().__init__()
        channels, self.height, self.width = space.shape
        self.levels, width = space.vocabulary, config.width
        self.label = nn.Embedding(space.classes + 1, width)
        self.above = nn.Conv2d(channels + 1, width, (3, 7))
        self.left = nn.Conv2d(channels + 1, width, (1, 3), bias=False)
        self.place = nn.Parameter(torch.zeros(width, self.height, self.width))
        self.blocks = nn.ModuleList(layer(width) for _ in range(config.layers))
        self.mix = nn.Conv2d(width, width, 1)
        self.output = Categorical(width, channels, self.levels)

    def forward(self, levels_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """log p(x_chw | all levels before), in nats, [B, C, H, W]; order: rows, columns, channels."""
        x = entrance(levels_BCHW, self.levels)
        above = self.above(F.pad(x[:, :, :-1], (3, 3, 3, 0)))
        h = above + self.left(F.pad(x[..., :-1], (3, 0)))
        h = h + self.place + self.label(label_B)[..., None, None]
        for block in self.blocks:
            h = h + block(h)
        features = F.silu(self.mix(h)).permute(0, 2, 3, 1)
        return self.output(features, levels_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def cache(self, rows: int) -> dict[str, Any]:
        """An empty cache for `rows` pictures."""
        return {"layers": [block.cache(rows, self.width) for block in self.blocks]}

    def next(self, levels_BCHW: Tensor, label_B: Tensor, index: int, cache: dict[str, Any]) -> Tensor:
        """Logits [B, K] of level number `index`, given the levels before it. Must be called in order."""
        place, channel = divmod(index, levels_BCHW.shape[1])
        row, column = divmod(place, self.width)
        if channel == 0:
            if column == 0:
                seen = entrance(levels_BCHW[:, :, max(0, row - 3) : row], self.levels)
                missing = 3 - seen.shape[2]
                above = self.above(F.pad(seen, (3, 3, missing, 0)))[:, :, 0]
                label = self.label(label_B)[..., None]
                cache["above"] = above + self.place[:, row] + label
                for block, kept in zip(self.blocks, cache["layers"], strict=True):
                    block.begin_row(kept)
            before = levels_BCHW[:, :, row : row + 1, max(0, column - 3) : column]
            seen = entrance(before, self.levels)[:, :, 0]
            window = F.pad(seen, (3 - seen.shape[2], 0))
            h = matrix(window, self.left) + cache["above"][..., column]
            for block, kept in zip(self.blocks, cache["layers"], strict=True):
                h = h + block.pixel(h, column, kept)
            cache["features"] = F.silu(F.linear(h, self.mix.weight.flatten(1), self.mix.bias))
        return self.output.logits(cache["features"], levels_BCHW[:, :, row, column], channel)
