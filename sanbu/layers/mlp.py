"""The position-wise half of a transformer block, and its activations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit, tanh form (Hendrycks and Gimpel, 2016), as GPT-1 and GPT-2 were trained."""
    return F.gelu(x, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So and others, 2021)."""
    return F.relu(x).square()


class MLP(nn.Module):
    """activation(x W_up) W_down."""

    def __init__(self, width: int, hidden: int, bias: bool, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias)
        self.down = nn.Linear(hidden, width, bias)
        self.activation = activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x_BTD)))


class GatedMLP(nn.Module):
    """(activation(x W_gate) * x W_up) W_down; SwiGLU with silu, GeGLU with gelu (Shazeer, 2020)."""

    def __init__(
        self, width: int, hidden: int, bias: bool = False, activation: Callable[[Tensor], Tensor] = F.silu
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias)
        self.up = nn.Linear(width, hidden, bias)
        self.down = nn.Linear(hidden, width, bias)
        self.activation = activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x_BTD)) * self.up(x_BTD))
