"""Augmentation that gradients pass through: DiffAugment, T(x), applied to real and generated pictures alike.

The critic sees D(T(x)) and D(T(G(z))), so the generator does not learn the augmentation. Zhao and others,
"Differentiable augmentation for data-efficient GAN training", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DRAWS = 6  # random numbers per row


def augmented(x_BCHW: Tensor, chance_B6: Tensor, names: tuple[str, ...]) -> Tensor:
    """Pictures after the named augmentations, in this order; every row has its own draws, uniform in [0, 1)."""
    for name in names:
        x_BCHW = AUGMENTATIONS[name](x_BCHW, chance_B6)
    return x_BCHW


def colour(x_BCHW: Tensor, chance_B6: Tensor) -> Tensor:
    """Brightness changed by at most 0.25; contrast and saturation multiplied by 0.5 to 1.5."""
    bright, contrast, saturation = (chance_B6[:, i].view(-1, 1, 1, 1) for i in range(3))
    x_BCHW = x_BCHW + (bright - 0.5) / 2
    grey = x_BCHW.mean(1, keepdim=True)
    x_BCHW = grey + (x_BCHW - grey) * (saturation + 0.5)
    mean = x_BCHW.mean((1, 2, 3), keepdim=True)
    return mean + (x_BCHW - mean) * (contrast + 0.5)


def shift(x_BCHW: Tensor, chance_B6: Tensor) -> Tensor:
    """Pictures moved by at most an eighth of each side; the border is filled with -1."""
    height, width = x_BCHW.shape[2:]
    room = (max(1, height // 8), max(1, width // 8))
    down = (chance_B6[:, 3] * (2 * room[0] + 1)).long()
    right = (chance_B6[:, 4] * (2 * room[1] + 1)).long()
    padded = F.pad(x_BCHW, (room[1], room[1], room[0], room[0]), value=-1.0)
    rows = (down[:, None] + torch.arange(height, device=down.device)).view(-1, 1, height, 1)
    columns = (right[:, None] + torch.arange(width, device=right.device)).view(-1, 1, 1, width)
    taken = padded.gather(2, rows.expand(-1, x_BCHW.shape[1], -1, padded.shape[3]))
    return taken.gather(3, columns.expand(-1, x_BCHW.shape[1], height, -1))


def cutout(x_BCHW: Tensor, chance_B6: Tensor) -> Tensor:
    """Pictures with a rectangle of about half of each side set to 0."""
    height, width = x_BCHW.shape[2:]
    rows, columns = torch.arange(height, device=x_BCHW.device), torch.arange(width, device=x_BCHW.device)
    down = (chance_B6[:, 3, None] * height).floor()
    inside = ((rows - down).abs() <= height // 4).float()[:, None, :, None]
    right = (chance_B6[:, 5, None] * width).floor()
    across = ((columns - right).abs() <= width // 4).float()[:, None, None, :]
    return x_BCHW * (1 - inside * across)


AUGMENTATIONS = {function.__name__: function for function in (colour, shift, cutout)}
