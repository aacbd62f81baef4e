"""Pictures as rows, a pure function of position: split by a hash of their content, augmented with keyed noise."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor
from torch.nn import functional as F

from sanbu.codecs.codec import Codec
from sanbu.codecs.images import ImageCodec, to_unit
from sanbu.config import SanbuError
from sanbu.data.cache import cache_folder
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.order import shuffled
from sanbu.data.pictures import Pictures, Shape, open_source
from sanbu.files import read_json, write_json
from sanbu.noise import Noise, mix_int
from sanbu.progress import progress_rows
from sanbu.space import Batch, Space

PARTS = ("train", "validation", "test")
RULES = 2  # the version of how files become pixels (codecs/pixels.py); another one reads the data anew


class Images(DataConfig):
    """Pictures with or without labels; a hash of each picture decides its split."""

    measure: ClassVar[str] = "pictures"
    kind: Literal["images"] = "images"
    path: str = Field(
        "digits",
        description="digits (from scikit-learn), folder, .zip, .npz, .parquet, idx3-ubyte, or hub:NAME",
    )
    shape: tuple[int, int, int] | Literal["auto"] = Field(
        "auto",
        description="channels, height, width; others are cropped to the centre and resized; auto reads the data",
    )
    levels: int | Literal["auto"] = Field(
        "auto",
        description="levels per channel; fewer than stored quantises, 2 binarises at random by brightness",
    )
    classes: int | Literal["auto"] = Field(
        "auto", description="number of classes; 0 ignores the labels; auto reads the data"
    )
    validation: float = Field(0.1, ge=0, lt=1, description="fraction held out for validation")
    test: float = Field(0.1, ge=0, lt=1, description="fraction held out for testing")
    flip: bool = Field(False, description="mirror half of the training rows, at random")
    shift: int = Field(0, ge=0, le=1024, description="largest random shift of training rows, in pixels")
    drop_label: float = Field(
        0.0, ge=0, lt=1, description="fraction of training rows whose label is dropped; guidance needs more than 0"
    )

    @field_validator("shape", mode="after")
    @classmethod
    def _positive(cls, shape: Any) -> Any:
        if shape != "auto" and (shape[0] not in (1, 3) or min(shape) < 1):
            raise ValueError(f"given {list(shape)}; channels must be 1 or 3, height and width at least 1")
        return shape

    @field_validator("levels", "classes", mode="after")
    @classmethod
    def _allowed(cls, value: Any, info: ValidationInfo) -> Any:
        if value == "auto":
            return value
        if info.field_name == "levels" and not 2 <= value <= 256:
            raise ValueError(f"given {value}; levels must be between 2 and 256")
        if info.field_name == "classes" and value < 0:
            raise ValueError(f"given {value}; classes must be 0 or more")
        return value

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must be less than 1, so that pictures are left for training")
        return self

    def stored(self) -> int:
        """The number of intensity levels of the stored pictures."""
        return 17 if self.path == "digits" else 256

    def resolve(self) -> Images:
        if "auto" not in (self.shape, self.levels, self.classes):
            return self
        found = open_source(self.path)
        return self.model_copy(
            update={
                "shape": found.one_shape if self.shape == "auto" else self.shape,
                "levels": found.levels if self.levels == "auto" else self.levels,
                "classes": found.classes if self.classes == "auto" else self.classes,
            }
        )

    def space(self) -> Space:
        if self.path == "digits":  # constants, so that a recipe can be shown without loading the pictures
            known: tuple[Any, int, int] = ((1, 8, 8), 17, 10)
            pairs = zip((self.shape, self.levels, self.classes), known, strict=True)
            found: list[Any] = [default if own == "auto" else own for own, default in pairs]
        elif "auto" not in (self.shape, self.levels, self.classes):
            found = [self.shape, self.levels, self.classes]
        else:
            source = open_source(self.path)
            stored = (source.shape, source.levels, source.classes)
            own = (self.shape, self.levels, self.classes)
            found = [known if given == "auto" else given for given, known in zip(own, stored, strict=True)]
        shape, levels, classes = found
        return Space(shape, levels, classes=classes, unlabelled=self.drop_label > 0 or not classes)

    def example(self, rows: int) -> Batch:
        levels = no_tokens(rows, *self.space().shape)
        return {"image": levels.float(), "levels": levels, "label": no_tokens(rows)}

    def build(self) -> Data:
        return build(self)

    def codec(self, folder: Path) -> Codec:
        return ImageCodec.load(folder, self.space())


class ImageRows:
    """Rows of `image` [B, C, H, W] in [-1, 1], `levels` (the same as integers) and `label` (`classes`: no label)."""

    def __init__(
        self,
        config: Images,
        images: np.ndarray,
        labels: np.ndarray,
        fingerprint: str,
        names: tuple[str, ...],
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.config, self.images, self.labels = config, images, labels
        self.space, self.fingerprint, self.names, self.remarks = config.space(), fingerprint, names, remarks
        part = split_by_hash(images, config.validation, config.test)
        self.places = {name: np.flatnonzero(part == number) for number, name in enumerate(PARTS)}
        self.rows, self.held_out_rows = len(self.places["train"]), len(self.places["validation"])

    @cached_property
    def codec(self) -> ImageCodec:
        """The codec for these pictures."""
        return ImageCodec(self.space, self.names)

    def summary(self) -> str:
        """Number of pictures, their shape, levels and classes, and the sizes of the splits."""
        channels, height, width = self.space.shape
        sizes = {name: len(self.places[name]) for name in PARTS}
        counts = ", ".join(f"{size:,} {name}" for name, size in sizes.items() if size)
        classes = f", {self.space.classes} classes" if self.space.classes else ""
        shape = f"{width} x {height} x {channels}, {self.space.vocabulary} levels"
        return f"{len(self.images):,} pictures {shape}{classes}: {counts}"

    def describe(self) -> str:
        """The summary, and what was left out or changed, with counts."""
        return "; ".join((self.summary(), *self.remarks))

    def class_counts(self) -> dict[str, int]:
        """The number of pictures of each class, by its name; empty without labels."""
        counts = np.bincount(self.labels, minlength=self.space.classes) if self.space.classes else ()
        return {self.codec.label_name(number): int(count) for number, count in enumerate(counts)}

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
        """Validation rows in the order of the source, without augmentation."""
        return self.take(self.places["validation"][start : start + size])

    def part(self, name: str) -> Batch:
        """All rows of train, validation or test, without augmentation."""
        return self.take(self.places[name])

    def take(self, places: np.ndarray) -> Batch:
        """The rows of the pictures with these numbers."""
        levels = torch.from_numpy(self._levels(np.ascontiguousarray(self.images[places]), places))
        label = torch.from_numpy(self.labels[places])
        return {"image": to_unit(levels, self.space), "levels": levels, "label": label}

    def _levels(self, pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Pixels as levels of this space; with 2 levels, drawn once, 1 with a probability equal to the brightness."""
        stored, wanted = self.config.stored(), self.space.vocabulary
        if wanted == stored:
            return pixels.astype(np.int64)
        if wanted > 2:
            return pixels.astype(np.int64) * wanted // stored
        noises = [Noise("binarise", first_row=int(place)) for place in places]
        drawn = np.stack([noise.uniform(1, *pixels.shape[1:])[0].numpy() for noise in noises])
        return (drawn < pixels / (stored - 1)).astype(np.int64)


def shifted(levels: Tensor, room: int, offset_B2: Tensor) -> Tensor:
    """Each picture padded by `room` pixels with repeated edges, then cropped at its offset, 0 to 2 * room."""
    padded = F.pad(levels.float(), (room,) * 4, mode="replicate").long()
    height, width = levels.shape[2:]
    rows = []
    for picture, (y, x) in zip(padded, offset_B2.tolist(), strict=True):
        rows.append(picture[:, y : y + height, x : x + width])
    return torch.stack(rows)


def split_by_hash(images: np.ndarray, validation: float, test: float) -> np.ndarray:
    """The split of each picture, an index of PARTS, by a hash of its content; copies get the same split."""
    chances = np.array([hash_chance(image) for image in images])
    return np.where(chances < test, 2, np.where(chances < test + validation, 1, 0))


def hash_chance(image: np.ndarray) -> float:
    """A hash of the picture as a number in [0, 1)."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).digest()
    return (mix_int(int.from_bytes(digest, "little")) & ((1 << 53) - 1)) / (1 << 53)


def build(config: Images) -> ImageRows:
    """The rows of a resolved config. Raises SanbuError for fewer than 2 training pictures."""
    found = open_source(config.path)
    shape: Any = config.space().shape
    classes = config.space().classes
    plain = config.path == "digits" and shape == found.shape
    content = config.path if config.path == "digits" else found.content_hash()
    name = "images-" + short_hash(json.dumps([1 if plain else RULES, content, shape]).encode())
    if config.path == "digits":
        images, done = read_pictures(found, shape)
    else:
        images, done = load_array(name, found, shape)
    labels = np.zeros(len(images), np.int64) if found.labels is None or not classes else found.labels
    if classes and labels.max() >= classes:
        raise SanbuError(f"data.classes: given {classes}, but {config.path!r} has labels up to {labels.max()}")
    fingerprint = name if plain or found.labels is None else f"{name}-{labels_hash(found)}"
    remarks = (*found.remarks, *(f"{count:,} {what}" for what, count in done.items()))
    rows = ImageRows(config, images, labels, fingerprint, found.names, remarks)
    if rows.rows < 2:
        raise SanbuError(
            f"data.path: {config.path!r} has {len(images)} pictures, {rows.rows} of them for training;"
            " at least 2 are needed"
        )
    return rows


def short_hash(content: bytes) -> str:
    """24 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:24]


def labels_hash(found: Pictures) -> str:
    """A hash of the labels and of the names of their classes."""
    return short_hash(json.dumps([found.labels.tolist() if found.labels is not None else None, found.names]).encode())


def load_array(name: str, found: Pictures, shape: Shape) -> tuple[np.ndarray, dict[str, int]]:
    """The pictures as a memory-mapped array in the cache, and what was done to them; read the first time."""

    def make(folder: Path) -> None:
        images, done = read_pictures(found, shape)
        np.save(folder / "images.npy", images)
        write_json(folder / "done.json", done)

    folder = cache_folder(name, make)
    return np.load(folder / "images.npy", mmap_mode="r"), read_json(folder / "done.json")


def read_pictures(found: Pictures, shape: Shape) -> tuple[np.ndarray, dict[str, int]]:
    """All pictures as uint8 [N, C, H, W], and a count of what was done to them."""
    images = np.empty((found.count, *shape), np.uint8)
    done: Counter[str] = Counter()
    brightest = 0
    with progress_rows("reading pictures", found.count) as progress:
        for number, picture in enumerate(found.read(shape, done)):
            images[number] = picture
            brightest = max(brightest, int(picture.max()))
            progress(1)
    if brightest < found.levels // 8:
        done[f"pictures, none brighter than level {brightest} of {found.levels - 1}"] = found.count
    return images, dict(done)
