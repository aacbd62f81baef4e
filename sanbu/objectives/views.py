"""Views of a picture: the same picture moved, turned, stretched, lit otherwise, with a part hidden.

All pictures of a batch are changed at once: one affine map of the plane each, sampled bilinearly with repeated edges;
then brightness and contrast, then a square of the picture's mean. A view is a function of the picture and of DRAWS
uniform numbers, so it is the same alone and in a batch. Cutout: DeVries and Taylor, 2017.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.config import Config
from sanbu.noise import Noise

DRAWS = 11  # random numbers per view


class Change(Config):
    """How much a view may differ from its picture. Lengths are fractions of the picture's sides."""

    shift: float = Field(0.0, ge=0, le=1, description="largest shift to each side, in whole pixels")
    flip: bool = Field(False, description="mirror half of the pictures; not for digits and letters")
    turn: float = Field(0.0, ge=0, le=180, description="largest angle, in degrees")
    scale: float = Field(0.0, ge=0, lt=1, description="sides change by at most this fraction")
    shear: float = Field(0.0, ge=0, le=1, description="largest slope of a vertical line")
    brightness: float = Field(0.0, ge=0, le=1, description="most that is added, of the range of values")
    contrast: float = Field(0.0, ge=0, lt=1, description="differences from the mean change by at most this fraction")
    hole: float = Field(0.0, ge=0, le=1, description="side of a square that is hidden")

    @property
    def bends(self) -> bool:
        """Whether a view needs more than whole pixels moved."""
        return self.turn > 0 or self.scale > 0 or self.shear > 0


WEAK = Change(shift=0.125)
STRONG = Change(shift=0.15, turn=25.0, scale=0.15, shear=0.15, brightness=0.2, contrast=0.3, hole=0.3)


def views(change: Change, pictures_NCHW: Tensor, chance_NK: Tensor) -> Tensor:
    """One view of each picture. chance_NK: K = DRAWS numbers in (0, 1) per picture; pictures are from -1 to 1."""
    if not len(pictures_NCHW) or change == Change():
        return pictures_NCHW
    sign_NK = 2 * chance_NK - 1
    x = pictures_NCHW
    if change.shift or change.flip or change.bends:
        grid = F.affine_grid(maps(change, sign_NK, x.shape[2:]), list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    if change.brightness or change.contrast:
        mean = x.mean((1, 2, 3), keepdim=True)
        factor, more = (sign_NK[:, i].view(-1, 1, 1, 1) for i in (7, 8))
        x = (mean + (x - mean) * (1 + change.contrast * factor) + 2 * change.brightness * more).clamp(-1, 1)
    return hide(x, change.hole, chance_NK[:, 9], chance_NK[:, 10]) if change.hole else x


def maps(change: Change, sign_NK: Tensor, sides: torch.Size) -> Tensor:
    """The affine maps [N, 2, 3] from a view to its picture, both from -1 to 1."""
    height, width = sides
    mirror = torch.where(sign_NK[:, 0] < 0, -1.0, 1.0) if change.flip else torch.ones_like(sign_NK[:, 0])
    down, right = (
        2 * (sign_NK[:, 1 + axis] * (math.floor(change.shift * side) + 0.5)).round() / side
        for axis, side in enumerate((height, width))
    )
    angle, slope = math.radians(change.turn) * sign_NK[:, 3], change.shear * sign_NK[:, 4]
    tall, wide = (1 + change.scale * sign_NK[:, i] for i in (5, 6))
    sine, cosine = angle.sin(), angle.cos()
    first = torch.stack((mirror * wide * cosine, (slope * cosine - sine) * height / width, right), 1)
    second = torch.stack((mirror * sine * width / height, tall * (cosine + slope * sine), down), 1)
    return torch.stack((first, second), 1)


def hide(x_NCHW: Tensor, hole: float, down_N: Tensor, right_N: Tensor) -> Tensor:
    """Pictures with a square set to their mean; its centre is anywhere, so a part of it may be outside."""
    inside = []
    for axis, chance_N in ((2, down_N), (3, right_N)):
        side = x_NCHW.shape[axis]
        places = torch.arange(side, device=x_NCHW.device) + 0.5
        inside.append((places - side * chance_N[:, None]).abs() < hole * side / 2)
    hidden = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return torch.where(hidden, x_NCHW.mean((2, 3), keepdim=True), x_NCHW)


def draws(noise: Noise, rows: int, each: int = 1) -> Tensor:
    """Random numbers for `each` views of every row, [rows * each, DRAWS]."""
    return noise.uniform(rows, each * DRAWS).view(-1, DRAWS)
