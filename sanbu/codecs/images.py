"""The codec of pictures: labels and known pixels in; PNG files, grids and animations out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sanbu.codecs.codec import Written
from sanbu.codecs.pixels import as_bytes, channels_first, fit, read_pixels
from sanbu.config import SanbuError, nearest
from sanbu.files import beside, read_json, replace_atomically, write_json
from sanbu.space import Batch, Draft, Space

SHOWN = 100  # pictures in a grid


def to_unit(levels: Tensor, space: Space) -> Tensor:
    """Levels 0 .. K - 1 as float32 from -1 to 1."""
    return levels.float() * (2 / (space.vocabulary - 1)) - 1


def to_levels(sample: Tensor, space: Space) -> Tensor:
    """The nearest level of each value; integers are levels already."""
    if not sample.is_floating_point():
        return sample
    top = space.vocabulary - 1
    return ((sample + 1) * (top / 2)).round().clamp(0, top).long()


def whole_number(text: str) -> int | None:
    """The number that a text is, None if it is no whole number from 0."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


class ImageCodec:
    """The codec of the pictures of a space. names: names of the classes, or empty."""

    medium, unit = "image", "pictures"
    animated = True  # an export shows how they were drawn

    def __init__(self, space: Space, names: Sequence[str] = ()) -> None:
        self.space, self.names = space, tuple(names)

    @classmethod
    def load(cls, folder: Path, space: Space) -> ImageCodec:
        """The codec that was saved in a run folder."""
        path = folder / "labels.json"
        return cls(space, read_json(path) if path.exists() else ())

    def save(self, folder: Path) -> None:
        if self.names:
            write_json(folder / "labels.json", list(self.names))

    def vocabulary(self) -> None:
        """None: pictures have no tokens."""
        return

    def request(self, prompt: str | None, label: str | None) -> dict[str, str | None]:
        return {"label": label, "picture": prompt}

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """label_B and, if part of a picture is given, known_BCHW with its mask.

        prompt: None for all labels in turn, a label (number or name), or {"label": ..., "picture": path or array [C,
        H, W] of levels}. In turn: the row of seed s has the label s modulo the number of classes, so that it is the
        same picture alone and in a batch. Pixels to draw are transparent in a PNG, negative in an array. Raises
        SanbuError for a label out of range, and for a picture without pixels to draw.
        """
        asked = prompt if isinstance(prompt, dict) else {"label": prompt}
        if asked.get("label") is None:
            classes = max(1, self.space.classes)
            label = (torch.arange(rows) + seed % classes) % classes
        else:
            label = torch.full((rows,), self.label_number(asked["label"]))
        if asked.get("picture") is None:
            return {"label": label}
        levels, mask = self.known_pixels(asked["picture"])
        each = (rows, *self.space.shape)
        return {"label": label, "known": levels.expand(each), "mask": mask.expand(each)}

    def label_number(self, label: int | str) -> int:
        """The class number of a label, as text or number; `none` means no label.

        A label is the name of a class. Names that are whole numbers are compared by value, so 2, "2" and "02" are the
        same; where no name is a number, a number is the place of the class, from 0.
        """
        classes = self.space.classes
        if not classes:
            raise SanbuError(f"label: given {label}, but this run was trained without labels")
        if label in self.names:
            return self.names.index(str(label))
        if label == "none":
            if self.space.unlabelled:
                return classes
            raise SanbuError(
                "label: given none, but this run was never trained on rows without label (data.drop_label=0)"
            )
        value = whole_number(str(label))
        numbered = {whole_number(name): number for number, name in enumerate(self.names)}
        places = {number: number for number in range(classes)} if set(numbered) <= {None} else numbered
        if value is not None and value in places:
            return places[value]
        allowed = f"0 to {classes - 1}" + (f", or {', '.join(self.names)}" if self.names else "")
        if set(numbered) > {None} or (self.names and None not in numbered):
            allowed = ", ".join(self.names)
        raise SanbuError(f"label: given {label}, allowed: {allowed}{nearest(str(label), self.names)}")

    def label_name(self, number: int) -> str:
        """The name of a class."""
        return self.names[number] if number < len(self.names) else str(number)

    def known_pixels(self, picture: Any) -> tuple[Tensor, Tensor]:
        """Levels, and the mask of the known pixels, both [C, H, W]; read by the rules of codecs/pixels.py.

        Raises SanbuError for another size, and where every pixel is known, so that there is nothing to draw.
        """
        if isinstance(picture, (str, Path)):
            levels, seen = self._read_known(Path(picture))
        else:
            values = torch.as_tensor(np.asarray(picture)).long()
            if tuple(values.shape) != self.space.shape:
                raise SanbuError(f"picture: given {list(values.shape)}, but this run draws {list(self.space.shape)}")
            levels, seen = values.clamp(min=0), values >= 0
        if bool(seen.all()):
            given = str(picture) if isinstance(picture, (str, Path)) else "the given array"
            how = "are transparent in a file, negative in an array"
            raise SanbuError(f"picture: {given} has no pixel to draw; pixels to draw {how}")
        return levels, seen

    def _read_known(self, picture: Path) -> tuple[Tensor, Tensor]:
        try:
            with picture.open("rb") as file:
                found = read_pixels(str(picture), file)
        except OSError as error:
            raise SanbuError(f"{picture} cannot be read as a picture: {error.strerror}") from None
        values = as_bytes(str(picture), found.values)
        shape: Any = self.space.shape
        channels, height, width = shape
        if values.shape[:2] != (height, width):
            raise SanbuError(
                f"{picture} is {values.shape[1]} x {values.shape[0]}, but this run draws {width} x {height}"
            )
        colour = torch.from_numpy(fit(channels_first(values), shape).astype(np.float32))
        opacity = np.full((height, width), 255) if found.opacity is None else found.opacity
        seen = torch.from_numpy(opacity > 127).expand(channels, -1, -1)
        return to_levels(colour / 127.5 - 1, self.space), seen

    def read(self, sample: Tensor) -> np.ndarray:
        """One picture as uint8 [H, W] or [H, W, 3]."""
        levels = to_levels(sample, self.space).cpu().float() * (255 / (self.space.vocabulary - 1))
        pixels = levels.round().byte().numpy().transpose(1, 2, 0)
        return pixels[..., 0] if pixels.shape[2] == 1 else pixels

    def follow(self, stop: Sequence[str] = ()) -> PictureFollower:
        """A follower that keeps the last draft; `stop` has no meaning for pictures."""
        return PictureFollower(self)

    def amount(self, batch: Batch) -> int:
        return len(batch["levels"])

    def show(self, sample: np.ndarray) -> str:
        return ""

    def render(self, samples: Sequence[Any], path: Path) -> Path:
        """Write a grid of the samples as PNG, enlarged."""
        path = path.with_name(path.name + ".png")
        write_image(path, enlarged(grid(samples)))
        return path

    def export(self, samples: Sequence[np.ndarray], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write a PNG per picture into the folder; beside it a grid of the first 100, and an animation of the frames.

        The folder holds nothing else, so that programs that compute FID can read it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        overview = self.render(samples[:SHOWN], beside(folder, "grid"))  # first: it tells whose the pictures are
        for number, picture in enumerate(samples):
            write_image(folder / f"{number:04d}.png", picture)
        written: Written = {"pictures": len(samples), "folder": str(folder), "grid": str(overview)}
        if len(frames) > 1:
            path = beside(folder, "refinement.gif")
            write_animation(path, [enlarged(grid(frame)) for frame in frames])
            written["animation"] = str(path)
        return written


class PictureFollower:
    """Keeps the last draft; rows end when the strategy ends them."""

    def __init__(self, codec: ImageCodec) -> None:
        self.codec = codec
        self.sample: Tensor | None = None

    def update(self, draft: Draft) -> Tensor:
        """Keep the draft."""
        self.sample = draft.sample
        return draft.done

    @property
    def pieces(self) -> list[np.ndarray]:
        """The current picture of each row."""
        return self.results()

    def results(self) -> list[np.ndarray]:
        """Each row as uint8 [H, W] or [H, W, 3]."""
        return [] if self.sample is None else [self.codec.read(row) for row in self.sample]


def grid(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures in a grid with grey lines: about square, or ten per row for a multiple of ten."""
    count = len(samples)
    columns = 10 if count % 10 == 0 and count >= 20 else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = samples[0].shape[:2]
    tall, wide = rows * (height + 1) - 1, columns * (width + 1) - 1
    canvas = np.full((tall, wide, *samples[0].shape[2:]), 128, np.uint8)
    for number, picture in enumerate(samples):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def enlarged(picture: np.ndarray, wanted: int = 480) -> np.ndarray:
    """The picture with each pixel repeated, so that its longer side has at most about `wanted` pixels."""
    times = max(1, wanted // max(picture.shape[:2]))
    return picture.repeat(times, 0).repeat(times, 1)


def write_image(path: Path, picture: np.ndarray) -> None:
    """Write a PNG atomically."""
    with replace_atomically(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_animation(path: Path, frames: Sequence[np.ndarray], seconds: float = 3.0) -> None:
    """Write a GIF atomically: all frames within `seconds`, then the last frame for 1.5 seconds."""
    pictures = [Image.fromarray(frame) for frame in frames]
    each = max(20, int(1000 * seconds / len(frames)))  # milliseconds
    times = [each] * (len(frames) - 1) + [1500]
    with replace_atomically(path) as temporary:
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
