"""A conditional residual perceptron: enough for pictures of 64 pixels, at a hundredth of the cost of convolutions."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F


class PerceptronBlock(nn.Module):
    """x + W2 silu(W1 norm(x) + C condition)."""

    def __init__(self, width: int, hidden: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.told = nn.Linear(condition, hidden, bias=False)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BD: Tensor, condition_BE: Tensor) -> Tensor:
        hidden = F.silu(self.up(self.norm(x_BD)) + self.told(condition_BE))
        return x_BD + self.down(self.dropout(hidden))


class Perceptron(nn.Module):
    """inputs -> width -> blocks -> outputs; zero: start the last matrix at zero."""

    def __init__(
        self,
        inputs: int,
        width: int,
        layers: int,
        outputs: int,
        condition: int,
        dropout: float = 0.0,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(PerceptronBlock(width, 2 * width, condition, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, outputs)
        if zero:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x_BI: Tensor, condition_BE: Tensor) -> Tensor:
        """outputs_BO for inputs_BI; the condition is one vector per row."""
        x_BD = self.first(x_BI)
        for block in self.blocks:
            x_BD = block(x_BD, condition_BE)
        return self.last(F.silu(self.norm(x_BD)))


class LabelledPerceptron(nn.Module):
    """A perceptron conditioned on a label; inputs are flattened, outputs have shape [B, *outputs]."""

    def __init__(
        self, inputs: int, outputs: tuple[int, ...], width: int, layers: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.label = nn.Embedding(classes + 1, width)
        self.body = Perceptron(inputs, width, layers, math.prod(outputs), width, dropout)

    def forward(self, x: Tensor, label_B: Tensor) -> Tensor:
        return self.body(x.flatten(1), self.label(label_B)).view(-1, *self.outputs)
