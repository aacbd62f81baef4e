"""A transformer over columns: p(x_c | any cells that are known), for every column at once.

Each column is a position. A known cell enters as the mean embedding of its symbols (symbols.py) and its score, an
unknown one as an embedding of its own; there is no causal mask. The output at an unknown column is its law given the
known cells. The chain rule in `order`, or in any other order, gives the exact likelihood of a row (Uria and others,
2014; Hoogeboom and others, 2022). C columns, S symbols of one column, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.codecs.columns import Column
from sanbu.config import Positive
from sanbu.models.columns.columns import ColumnsConfig, Law, order_of, possible
from sanbu.models.columns.margins import Margins
from sanbu.models.columns.symbols import SymbolLaw, symbols, weights
from sanbu.space import Space


class ColumnTransformer(ColumnsConfig):
    """A transformer over the columns of a table, which conditions on any cells; train it with objective.order=any."""

    kind: Literal["column-transformer"] = "column-transformer"
    layers: Positive = 3
    width: Positive = Field(64, description="width; sets automatic learning rate and batch size")
    heads: Positive = Field(4, description="attention heads; width must be a multiple")
    bins: int = Field(32, ge=2, le=256, description="quantile bins of a column of numbers")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % self.heads:
            raise ValueError(f"model.width: given {self.width}, but it must be a multiple of model.heads, {self.heads}")

    def build(self, space: Space) -> nn.Module:
        return TransformerColumns(self, space)


class TransformerColumns(nn.Module):
    """any_order: the law of a column takes all known cells, also those that come later in `order`."""

    any_order = True
    prepared: Tensor

    def __init__(self, config: ColumnTransformer, space: Space) -> None:
        super().__init__()
        self.bins, self.order = config.bins, order_of(space)
        self.columns: tuple[Column, ...] = space.columns
        self.margins = Margins(self.columns)
        sizes = [max(1, symbols(column, config.bins)) for column in self.columns]
        self.embeddings = nn.ModuleList(nn.Linear(size, config.width, bias=False) for size in sizes)
        self.heads = nn.ModuleList(nn.Linear(config.width, size) for size in sizes)
        shape = (len(sizes), config.width)
        self.place = nn.Parameter(0.1 * torch.randn(shape))
        self.hidden = nn.Parameter(0.1 * torch.randn(shape))
        self.slope = nn.Parameter(0.1 * torch.randn(shape))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width, config.heads, 4 * config.width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.register_buffer("prepared", torch.zeros((), dtype=torch.bool))

    def prepare(self, cells_BC: Tensor) -> None:
        """Take the margins of numbers from the first rows that are seen, and their ranges from the schema."""
        if bool(self.prepared):
            return
        self.margins.fit(cells_BC)
        for place, column in enumerate(self.columns):
            if column.dense and column.low < column.high:
                self.margins.knots[place, 0] = column.low
                self.margins.knots[place, -1] = column.high
        self.prepared.fill_(True)

    def encode(self, cells_BC: Tensor) -> Tensor:
        """value_BCW of all cells."""
        found = []
        for place, column in enumerate(self.columns):
            cell_B, linear = cells_BC[:, place], self.embeddings[place]
            weight_BS = weights(column, place, self.margins, cell_B, self.bins)
            share_BS = weight_BS / weight_BS.sum(1, keepdim=True).clamp(min=1e-300)
            value_BW = linear(share_BS.float()) if weight_BS.shape[1] else torch.zeros_like(self.place[:1])
            if column.dense:
                score_B = self.margins.score(cell_B, place).nan_to_num(nan=0.0).float()
                value_BW = value_BW + score_B[:, None] * self.slope[place]
            found.append(value_BW.expand(len(cells_BC), -1))
        return torch.stack(found, 1)

    def think(self, value_BCW: Tensor, known_BC: Tensor) -> Tensor:
        """hidden_BCW of every column, from the known cells alone."""
        x = torch.where(known_BC[:, :, None], value_BCW, self.hidden) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def law_of(self, hidden_BCW: Tensor, place: int) -> SymbolLaw:
        """The law of a column from the hidden state at its position."""
        logits_BS = self.heads[place](hidden_BCW[:, place]).double()
        return SymbolLaw(self.columns[place], place, self.margins, logits_BS.log_softmax(1))

    def usable(self, cells_BC: Tensor, known_BC: Tensor) -> Tensor:
        """Known cells that training rows could have."""
        columns = zip(self.columns, cells_BC.T, strict=True)
        return known_BC & torch.stack([possible(column, cell_B) for column, cell_B in columns], 1)

    def law(self, cells_BC: Tensor, known_BC: Tensor, column: int, further: bool = False) -> Law:
        """The law of a column given the known cells of the others."""
        known_BC = self.usable(cells_BC, known_BC).clone()
        known_BC[:, column] = False
        return self.law_of(self.think(self.encode(cells_BC), known_BC), column)

    def forward(self, cells_BC: Tensor, known_BC: Tensor, at_once: bool = False) -> Tensor:
        """log p of each cell given those before it in `order`, and the known ones; 0 for a known cell.

        at_once: of each unknown cell given the known ones alone, in one pass.
        """
        value_BCW, found = self.encode(cells_BC), {}
        seen_BC = self.usable(cells_BC, known_BC)
        hidden_BCW = self.think(value_BCW, seen_BC)
        for place in self.order:
            log_prob_B = self.law_of(hidden_BCW, place).log_prob(cells_BC[:, place])
            there_B = possible(self.columns[place], cells_BC[:, place])
            found[place] = torch.where(there_B & ~known_BC[:, place], log_prob_B, 0.0)
            if not at_once and place != self.order[-1]:
                seen_BC = seen_BC.clone()
                seen_BC[:, place] = there_B
                hidden_BCW = self.think(value_BCW, seen_BC)
        return torch.stack([found[place] for place in range(len(self.columns))], 1)
