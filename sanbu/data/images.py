"""Pictures as rows: pure functions of position, split by a hash of their content, augmented by position."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.codecs.images import ImageCodec, to_unit
from sanbu.config import SanbuError
from sanbu.data import kinds, sources
from sanbu.data.order import shuffled
from sanbu.data.pictures import Pictures, look
from sanbu.data.shards import cached
from sanbu.noise import Noise, mix_int
from sanbu.progress import progress_rows

Batch = dict[str, Tensor]
PARTS = ("train", "validation", "test")


class ImageRows:
    """Rows of `image` [B, C, H, W] in [-1, 1], `levels` (the same as integers) and `label` (classes: none given)."""

    def __init__(self, config: kinds.Images, images: np.ndarray, labels: np.ndarray, fingerprint: str, names: Any) -> None:
        self.config, self.images, self.labels = config, images, labels
        self.space, self.fingerprint, self.names = config.space(), fingerprint, names
        part = parts(images, config.validation, config.test)
        self.places = {name: np.flatnonzero(part == number) for number, name in enumerate(PARTS)}
        self.rows, self.held_out_rows = len(self.places["train"]), len(self.places["validation"])

    @cached_property
    def codec(self) -> ImageCodec:
        """Between people and these rows."""
        return ImageCodec(self.space, self.names)

    def describe(self) -> str:
        """How many, of what kind."""
        channels, height, width = self.space.shape
        counts = ", ".join(f"{len(self.places[name]):,} {name}" for name in PARTS if len(self.places[name]))
        classes = f", {self.space.classes} classes" if self.space.classes else ""
        return f"{len(self.images):,} pictures {width} x {height} x {channels}, {self.space.vocabulary} levels{classes}: {counts}"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order, augmented."""
        places = self.places["train"][shuffled(np.arange(start, start + size), self.rows, seed=0)]
        noise = Noise("augment", first_row=start)
        batch = self.take(places)
        levels, label = batch["levels"], batch["label"]
        if self.config.flip:
            levels = torch.where(noise.uniform(size, 1, 1, 1) < 0.5, levels.flip(3), levels)
        if self.config.shift:
            levels = shifted(levels, self.config.shift, noise.integers(2 * self.config.shift + 1, size, 2))
        if self.config.drop_label:
            label = torch.where(noise.uniform(size) < self.config.drop_label, self.space.classes, label)
        return {"image": to_unit(levels, self.space), "levels": levels, "label": label}

    def held_out(self, start: int, size: int) -> Batch:
        """Validation rows in their own order, as they are."""
        return self.take(self.places["validation"][start : start + size])

    def part(self, name: str) -> Batch:
        """All rows of train, validation or test, as they are."""
        return self.take(self.places[name])

    def take(self, places: np.ndarray) -> Batch:
        """The rows of so many pictures."""
        levels = torch.from_numpy(self._levels(np.ascontiguousarray(self.images[places]), places))
        label = torch.from_numpy(self.labels[places])
        return {"image": to_unit(levels, self.space), "levels": levels, "label": label}

    def _levels(self, pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Pixels as levels of this space; with 2 levels each pixel is drawn once with its brightness as probability."""
        stored, wanted = self.config.stored(), self.space.vocabulary
        if wanted == stored:
            return pixels.astype(np.int64)
        if wanted > 2:
            return pixels.astype(np.int64) * wanted // stored
        drawn = np.stack([Noise("binarise", first_row=int(p)).uniform(1, *pixels.shape[1:])[0].numpy() for p in places])
        return (drawn < pixels / (stored - 1)).astype(np.int64)


def shifted(levels: Tensor, room: int, offset_B2: Tensor) -> Tensor:
    """Each picture cut from itself with `room` more pixels on each side, edges repeated, at its own offset from 0 to 2 room."""
    padded = F.pad(levels.float(), (room,) * 4, mode="replicate").long()
    height, width = levels.shape[2:]
    rows = [p[:, y : y + height, x : x + width] for p, (y, x) in zip(padded, offset_B2.tolist(), strict=True)]
    return torch.stack(rows)


def parts(images: np.ndarray, validation: float, test: float) -> np.ndarray:
    """0 train, 1 validation, 2 test for each picture, by a hash of its content: copies stay together."""
    chances = np.array([chance(image) for image in images])
    return np.where(chances < test, 2, np.where(chances < test + validation, 1, 0))


def chance(image: np.ndarray) -> float:
    """A number in [0, 1) that only the picture decides."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).digest()
    return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)


def build(config: kinds.Images) -> ImageRows:
    """Read the pictures of a resolved config. Raises SanbuError when there are too few of them."""
    found = look(config.path)
    about = json.dumps(
        [1, config.path if config.path == "digits" else sources.fingerprint(config.path), config.space().shape]
    )
    name = "images-" + hashlib.sha256(about.encode()).hexdigest()[:24]
    shape = config.space().shape
    images = stacked(found, shape) if config.path == "digits" else kept(name, found, shape)
    classes = config.space().classes
    labels = np.zeros(len(images), np.int64) if found.labels is None or not classes else found.labels
    if classes and labels.max() >= classes:
        raise SanbuError(f"data.classes: given {classes}, but {config.path!r} has labels up to {labels.max()}")
    rows = ImageRows(config, images, labels, name, found.names)
    if rows.rows < 2:
        raise SanbuError(
            f"data.path: {config.path!r} holds {len(images)} pictures, {rows.rows} of them to train on; 2 are needed"
        )
    return rows


def kept(name: str, found: Pictures, shape: Any) -> np.ndarray:
    """The pictures as one array on disk, read once."""

    def make(folder: Path) -> None:
        np.save(folder / "images.npy", stacked(found, shape))

    return np.load(cached(name, make) / "images.npy", mmap_mode="r")


def stacked(found: Pictures, shape: Any) -> np.ndarray:
    """All pictures as uint8 [N, C, H, W]."""
    images = np.empty((found.count, *shape), np.uint8)
    with progress_rows("reading pictures", found.count) as progress:
        for number, picture in enumerate(found.read(tuple(shape))):
            images[number] = picture
            progress(1)
    return images
