"""Parts of convolutional networks for pictures: residual blocks, attention over pixels, halving and doubling.

Shapes: B batch, C channels, H, W. Norms are group norms; `condition_BE` is None without a condition.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + told))) (He and others, 2016; Ho, Jain and Abbeel, 2020)."""

    def __init__(
        self, inputs: int, outputs: int, groups: int, condition: int = 0, dropout: float = 0.0, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, epsilon)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.told = nn.Linear(condition, outputs) if condition else None
        self.norm2 = nn.GroupNorm(groups, outputs, epsilon)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x_BCHW: Tensor, condition_BE: Tensor | None = None) -> Tensor:
        """condition_BE: after its activation function."""
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        if self.told is not None and condition_BE is not None:
            h = h + self.told(condition_BE)[..., None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.shortcut(x_BCHW) + h


class PixelAttention(nn.Module):
    """x + attention over all pixels (Vaswani and others, 2017)."""

    def __init__(self, channels: int, head_width: int, groups: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.norm = nn.GroupNorm(groups, channels, epsilon)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        B, C, H, W = x_BCHW.shape
        x_BTC = self.norm(x_BCHW).flatten(2).transpose(1, 2)
        projected = [project(x_BTC) for project in (self.query, self.key, self.value)]
        heads = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in projected)
        y_BTC = self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return x_BCHW + y_BTC.transpose(1, 2).view(B, C, H, W)


class Halve(nn.Module):
    """A convolution of stride 2, with zeros on all sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(x_BCHW)


class HalveFromCorner(nn.Module):
    """A convolution of stride 2, with zeros below and to the right only (as in AutoencoderKL of diffusers)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Double(nn.Module):
    """Nearest-neighbour upsampling by 2, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


def padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """The picture with zeros below and to the right, so that height and width are multiples of `multiple`."""
    height, width = x_BCHW.shape[2:]
    return F.pad(x_BCHW, (0, -width % multiple, 0, -height % multiple))
