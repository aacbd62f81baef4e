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
        factor = 1 + change.contrast * sign_NK[:, 7]
        x = light(x, factor, 2 * change.brightness * sign_NK[:, 8])
    return hide(x, change.hole, chance_NK[:, 9], chance_NK[:, 10]) if change.hole else x


def maps(change: Change, sign_NK: Tensor, sides: torch.Size) -> Tensor:
    """The affine maps [N, 2, 3] from a view to its picture, both from -1 to 1."""
    height, width = sides
    down = shifts(change.shift, height, sign_NK[:, 1])
    right = shifts(change.shift, width, sign_NK[:, 2])
    angle = math.radians(change.turn) * sign_NK[:, 3]
    slope = change.shear * sign_NK[:, 4]
    tall, wide = 1 + change.scale * sign_NK[:, 5], 1 + change.scale * sign_NK[:, 6]
    if change.flip:
        wide = wide * sign_NK[:, 0].sign()
    sine, cosine = angle.sin(), angle.cos()
    across = wide * cosine
    upright = tall * (cosine + slope * sine)
    sideways = (slope * cosine - sine) * (height / width)
    rising = wide * sine * (width / height)
    return torch.stack((across, sideways, right, rising, upright, down), 1).view(-1, 2, 3)


def shifts(most: float, side: int, sign_N: Tensor) -> Tensor:
    """Shifts of whole pixels, as a part of half a side; all from -most to most are equally likely."""
    pixels = math.floor(most * side)
    return (sign_N * (pixels + 0.5)).round() * (2 / side)


def light(x_NCHW: Tensor, factor_N: Tensor, more_N: Tensor) -> Tensor:
    """Differences from the mean times a factor, and an amount more; from -1 to 1."""
    mean = x_NCHW.mean((1, 2, 3), keepdim=True)
    factor, more = factor_N.view(-1, 1, 1, 1), more_N.view(-1, 1, 1, 1)
    return (mean + (x_NCHW - mean) * factor + more).clamp(-1, 1)


def hide(x_NCHW: Tensor, hole: float, down_N: Tensor, right_N: Tensor) -> Tensor:
    """Pictures with a square set to their mean; its centre is anywhere, so a part of it may be outside."""
    rows = near(x_NCHW.shape[2], hole, down_N).view(-1, 1, x_NCHW.shape[2], 1)
    columns = near(x_NCHW.shape[3], hole, right_N).view(-1, 1, 1, x_NCHW.shape[3])
    return torch.where(rows & columns, x_NCHW.mean((2, 3), keepdim=True), x_NCHW)


def near(side: int, hole: float, chance_N: Tensor) -> Tensor:
    """Which places of a side the square covers, bool [N, side]."""
    places = torch.arange(side, device=chance_N.device) + 0.5
    return (places - side * chance_N[:, None]).abs() < hole * side / 2


def draws(noise: Noise, rows: int, each: int = 1) -> Tensor:
    """Random numbers for `each` views of every row, [rows * each, DRAWS]."""
    return noise.uniform(rows, each * DRAWS).view(-1, DRAWS)
