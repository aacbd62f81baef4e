"""A picture file as a person sees it: upright, opaque, grey or colour, 8 bits per channel. The rules:

- The EXIF orientation is applied. Of several frames or pages the first is read. Colour profiles are not applied.
- Transparency is put on white: v a + 255 (1 - a).
- Grey stays grey: modes of black and white, grey, 16 bits, 32 bits and floats. Palettes, CMYK and the rest become RGB.
- Deep grey is scaled as one set, so that pictures stay comparable (`Scale`). Integers of b bits keep their 8 highest
  bits, v >> (b - 8), where b is the smallest of 8, 10, 12, 14, 16, 31 and 32 bits that holds every value of the set.
  Floats from 0 to 1 become round(255 v); floats that are all whole numbers count as integers. Others are refused.
- Shrinking takes the mean over the exact area of each new pixel; enlarging is bicubic, kept within the stored levels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sanbu.config import SanbuError

Shape = tuple[int, int, int]
BITS = (8, 10, 12, 14, 16, 31, 32)
GREY = ("1", "L", "LA", "La", "I", "F")
TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION, PHOTOMETRIC, BITS_PER_SAMPLE, SAMPLE_FORMAT = 0x0112, 262, 258, 339  # EXIF and TIFF tags


class PictureError(SanbuError):
    """A picture that cannot be read."""


@dataclass(frozen=True)
class Pixels:
    """An upright picture. values: [H, W] or [H, W, 3], uint8, or deep grey as int64 or float32. opacity: uint8 [H, W].

    remarks: what was done to it, in words that a number of pictures can precede.
    """

    values: np.ndarray
    opacity: np.ndarray | None = None
    remarks: tuple[str, ...] = ()

    @property
    def deep(self) -> bool:
        """Whether the values need a `Scale`."""
        return self.values.dtype != np.uint8


# -- reading ----------------------------------------------------------------------------------------------------------


def read_pixels(name: str, source: bytes | BinaryIO) -> Pixels:
    """The picture in the content of a file. Raises PictureError, which names it."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            several = getattr(picture, "is_animated", False) and picture.format != "MPO"
            picture.load()  # some formats turn themselves here
            turn = TURNS.get(orientation(picture))
            upright = picture if turn is None else picture.transpose(turn)
            values, opacity = layers(upright, picture)
    except Exception as error:  # a damaged file makes its reader fail in any way
        raise PictureError(f"{name} cannot be read as a picture: {reason(error)}") from None
    done = {
        "turned upright (EXIF)": turn is not None,
        "transparent, on white": opacity is not None,
        "of several frames, first frame": several,
        "with more than 8 bits, scaled": values.dtype != np.uint8,
    }
    return Pixels(values, opacity, tuple(remark for remark, holds in done.items() if holds))


def read_shape(name: str, content: bytes) -> Shape:
    """The shape of a picture as `read_pixels` gives it, from the header where that tells it. Raises PictureError."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.format == "TIFF" and orientation(picture) >= 5:
                picture.load()  # which turns it
            width, height = picture.size
            channels = 1 if is_grey(picture.mode) else 3
            sideways = width != height and orientation(picture) >= 5
    except Exception as error:
        raise PictureError(f"{name} cannot be read as a picture: {reason(error)}") from None
    return (channels, width, height) if sideways else (channels, height, width)


def reason(error: Exception) -> str:
    """What a library says, in at most 80 characters."""
    return (str(error).splitlines() or [""])[0][:80] or type(error).__name__


def is_grey(mode: str) -> bool:
    """Whether pictures of a Pillow mode have one channel."""
    return mode in GREY or mode.startswith("I;16")


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where the EXIF data is damaged, as viewers show it."""
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata of a sound picture
        return 1
    return found if found in TURNS else 1


def layers(picture: Image.Image, stored: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and opacity; no opacity where all is opaque. stored: the picture as its file has it, with its tags."""
    clear = picture.info.get("transparency")
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = deep_values(picture, stored)
        return values, opacity_or_none(np.where(values == clear, 0, 255)) if isinstance(clear, int) else None
    grey = is_grey(picture.mode)
    if clear is None and not picture.mode.lower().endswith("a"):
        return np.asarray(picture.convert("L" if grey else "RGB")), None
    if isinstance(clear, tuple) and max(clear) > 255:  # 16 bits, of which Pillow keeps the 8 highest
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    both = np.asarray(picture.convert("LA" if grey else "RGBA"))
    values = both[..., 0] if grey else both[..., :3]
    return np.ascontiguousarray(values), opacity_or_none(both[..., -1])


def opacity_or_none(opacity: np.ndarray) -> np.ndarray | None:
    """Opacity as uint8, None where nothing is transparent."""
    return None if opacity.min(initial=255) == 255 else opacity.astype(np.uint8)


def deep_values(picture: Image.Image, stored: Image.Image) -> np.ndarray:
    """Grey values of 16 or 32 bits as int64, of floats as float32; a TIFF says whether 0 is white, or has a sign."""
    values = np.asarray(picture)
    tags: Any = getattr(stored, "tag_v2", {})
    if picture.mode == "F":
        if tags.get(PHOTOMETRIC) == 0:
            raise ValueError("floats in which 0 is white are not supported")
        return values.astype(np.float32)
    values = values.astype(np.int64)
    bits = int(tags.get(BITS_PER_SAMPLE, (16,))[0])
    if bits == 32 and tags.get(SAMPLE_FORMAT, (1,))[0] == 1:
        values = values & 0xFFFFFFFF  # Pillow reads unsigned numbers as signed
    return 2**bits - 1 - values if tags.get(PHOTOMETRIC) == 0 else values


# -- depth ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """The full scale of a set of deep grey pictures: `bits` of integers; 0 for floats from 0 to 1."""

    bits: int

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """Values of the set as uint8."""
        if not self.bits:
            return np.rint(values * 255).astype(np.uint8)
        return (np.rint(values).astype(np.int64) >> (self.bits - 8)).astype(np.uint8)


def scale_of(name: str, arrays: Iterable[np.ndarray]) -> Scale:
    """The scale that holds every value of arrays of one set. Raises PictureError if there is none."""
    low, high, whole, real = 0.0, 0.0, True, False
    for values in arrays:
        if np.issubdtype(values.dtype, np.floating):
            real = True
            if not np.isfinite(values).all():
                raise PictureError(f"{name} has values that are not finite numbers")
            whole = whole and bool((values == np.rint(values)).all())
        low, high = min(low, float(values.min(initial=0))), max(high, float(values.max(initial=0)))
    if real and low >= 0 and high <= 1:
        return Scale(0)
    bits = next((bits for bits in BITS if high < 2**bits), None)
    if low < 0 or bits is None or not whole:
        raise PictureError(
            f"{name} has values from {low:g} to {high:g};"
            " allowed: integers from 0 (at most 32 bits), floats from 0 to 1"
        )
    return Scale(bits)


def as_bytes(name: str, values: np.ndarray) -> np.ndarray:
    """An array of pictures as uint8: bool as black and white, other numbers by their `Scale`. Raises PictureError."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    return scale_of(name, [values]).to_bytes(values)


def on_white(values: np.ndarray, opacity: np.ndarray | None) -> np.ndarray:
    """uint8 values [H, W] or [H, W, 3] on a white background."""
    if opacity is None:
        return values
    a = opacity.astype(np.int64)
    a = a if values.ndim == 2 else a[..., None]
    return ((values * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)


def channels_first(values: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C] as [C, H, W]."""
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


# -- size -------------------------------------------------------------------------------------------------------------


def as_picture(values: np.ndarray) -> Image.Image:
    """uint8 [C, H, W] as a Pillow image."""
    return Image.fromarray(values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0))


def resize(picture: Image.Image, shape: Shape) -> np.ndarray:
    """The centre crop of a Pillow image at another size and number of channels, as uint8 [C, H, W]. See `fit`."""
    return fit(channels_first(np.asarray(picture.convert("L" if is_grey(picture.mode) else "RGB"))), shape)


def fit(values: np.ndarray, shape: Shape, top: int = 255) -> np.ndarray:
    """The centre crop of uint8 [C, H, W] in another shape. top: the highest level that is stored.

    Grey becomes colour by repeating it, colour becomes grey by its brightness (0.299 R + 0.587 G + 0.114 B).
    """
    channels, height, width = shape
    if values.shape[0] != channels:
        values = channels_first(np.asarray(as_picture(values).convert("L" if channels == 1 else "RGB")))
    scale = min(values.shape[2] / width, values.shape[1] / height)
    left, up = (values.shape[2] - width * scale) / 2, (values.shape[1] - height * scale) / 2
    if scale == 1:
        x, y = int(left), int(up)
        return np.ascontiguousarray(values[:, y : y + height, x : x + width])
    if scale > 1:
        return area_mean(values, (left, up), scale, (height, width))
    box = (left, up, left + width * scale, up + height * scale)
    enlarged = as_picture(values).resize((width, height), Image.Resampling.BICUBIC, box)
    return np.minimum(channels_first(np.asarray(enlarged)), top).astype(np.uint8)


def area_mean(values: np.ndarray, corner: tuple[float, float], scale: float, size: tuple[int, int]) -> np.ndarray:
    """The mean of uint8 [C, H, W] over the squares of side `scale` that begin at a corner (left, up)."""
    left, up = corner
    rows = [
        np.tensordot(weights, values[:, first : first + len(weights)].astype(np.float32), (0, 1))
        for first, weights in overlaps(up, scale, size[0], values.shape[1])
    ]
    shrunk = np.stack(rows, 1)  # [C, h, W]
    columns = [
        shrunk[:, :, first : first + len(weights)] @ weights
        for first, weights in overlaps(left, scale, size[1], values.shape[2])
    ]
    return np.rint(np.stack(columns, 2)).clip(0, 255).astype(np.uint8)


def overlaps(start: float, scale: float, count: int, available: int) -> Iterable[tuple[int, np.ndarray]]:
    """For each of `count` intervals of length `scale`: its first old pixel, and the share of it in each old pixel."""
    for number in range(count):
        low, high = start + number * scale, start + (number + 1) * scale
        first, last = max(0, math.floor(low)), min(available, math.ceil(high))
        edges = np.arange(first, last + 1).clip(low, high)
        weights = np.diff(edges)
        yield first, (weights / weights.sum()).astype(np.float32)
