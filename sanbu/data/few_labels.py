"""Pictures of which few have a label: each row is a labelled picture with several unlabelled ones beside it.

The labelled pictures are chosen by a hash of their content and the number of the draw, equally many of each class; the
labels of all other training rows are hidden. Held-out rows keep their labels, as in `Images`.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from sanbu.codecs.codec import Codec
from sanbu.codecs.picture_labels import PictureLabelCodec
from sanbu.config import SanbuError, one_line
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.image_rows import ImageRows, Images
from sanbu.data.order import shuffled
from sanbu.noise import key
from sanbu.space import IGNORED, Batch, Space


class FewLabels(DataConfig):
    """Pictures of which few have a label."""

    kind: Literal["few-labels"] = "few-labels"
    path: str = Field(
        "digits",
        description="pictures with labels: digits (from scikit-learn), folder with a folder per class, .npz, hub:NAME",
    )
    labels: int = Field(
        40, ge=0, description="labelled training pictures, equally many of each class; 0: all, which needs unlabelled"
    )
    draw: int = Field(0, ge=0, description="number of the choice of labelled pictures")
    unlabelled: str = Field("", description="further pictures, of any source; their labels, if any, are not read")
    ratio: int = Field(2, ge=0, description="unlabelled pictures beside each labelled one; 0: none")
    shape: tuple[int, int, int] | Literal["auto"] = Field(
        "auto", description="channels, height, width; others are cropped to the centre and resized; auto reads the data"
    )
    levels: int | Literal["auto"] = Field("auto", description="levels per channel; auto reads the data")
    classes: int | Literal["auto"] = Field("auto", description="number of classes; auto reads the data")
    validation: float = Field(0.1, ge=0, lt=1, description="fraction held out for validation")
    test: float = Field(0.1, ge=0, lt=1, description="fraction held out for testing")

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        try:
            self.pictures()
        except ValidationError as error:
            raise ValueError(one_line(error, Images)) from None
        return self

    def pictures(self) -> Images:
        """The pictures, without augmentation."""
        shared = ("path", "shape", "levels", "classes", "validation", "test")
        return Images(**{name: getattr(self, name) for name in shared})

    def more_pictures(self) -> Images:
        """The further pictures, in the shape of the others. Call it on a resolved config."""
        return Images(path=self.unlabelled, shape=self.shape, levels=self.levels, classes=0, validation=0.0, test=0.0)

    def resolve(self) -> FewLabels:
        found = self.pictures().resolve()
        return self.model_copy(update={name: getattr(found, name) for name in ("shape", "levels", "classes")})

    def space(self) -> Space:
        found = self.pictures().space()
        return Space(found.shape, found.vocabulary, classes=found.classes, unlabelled=False)

    def example(self, rows: int) -> Batch:
        picture = no_tokens(rows, *self.space().shape).float()
        batch = {"image": picture, "levels": picture.long(), "label": no_tokens(rows)}
        if self.ratio:
            beside = picture[:, None].expand(-1, self.ratio, -1, -1, -1).clone()
            batch |= {"unlabelled": beside, "hidden": no_tokens(rows, self.ratio)}
        return batch

    def build(self) -> Data:
        return FewLabelRows(self.resolve())

    def codec(self, folder: Path) -> Codec:
        return PictureLabelCodec.load(folder, self.space())


class FewLabelRows:
    """Rows of `image` and `levels` [B, C, H, W] with `label`, and `unlabelled` [B, U, C, H, W].

    `hidden` [B, U] are the labels that the unlabelled pictures have in the data, for reports only; IGNORED for none.
    """

    def __init__(self, config: FewLabels) -> None:
        self.config = config
        built: Any = config.pictures().build()
        self.pictures: ImageRows = built
        self.known = choose(config, self.pictures)
        self.hidden = np.setdiff1d(self.pictures.places["train"], self.known)
        more: Any = config.more_pictures().build() if config.unlabelled else None
        self.more: ImageRows | None = more
        self.pool = len(self.hidden) + (more.rows if more is not None else 0)
        if config.ratio and not self.pool:
            raise SanbuError(
                f"data.labels: given {config.labels}, but all {len(self.known)} training pictures are labelled then,"
                " and none is left without label; lower it, or give data.unlabelled=FOLDER"
            )
        self.rows, self.held_out_rows = len(self.known), self.pictures.held_out_rows
        about = [self.pictures.fingerprint, more.fingerprint if more is not None else "", self.known.tolist()]
        self.fingerprint = "few-labels-" + hashlib.sha256(repr(about).encode()).hexdigest()[:24]

    @cached_property
    def codec(self) -> PictureLabelCodec:
        """Reads a picture, writes its label."""
        return PictureLabelCodec(self.pictures.space, self.pictures.names)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left out or changed."""
        return self.pictures.remarks + (self.more.remarks if self.more is not None else ())

    def summary(self) -> str:
        """The numbers of labelled and unlabelled pictures."""
        return f"{self.pictures.summary()}; {self.rows:,} labelled, {self.pool:,} unlabelled"

    def describe(self) -> str:
        """The summary, and what was left out or changed."""
        return "; ".join((self.summary(), *self.remarks))

    def class_counts(self) -> dict[str, int]:
        """The number of labelled pictures of each class, by its name."""
        counts = np.bincount(self.pictures.labels[self.known], minlength=self.pictures.space.classes)
        return {self.codec.label_name(number): int(count) for number, count in enumerate(counts)}

    def batch(self, start: int, size: int) -> Batch:
        """Labelled rows at positions start .. start + size - 1 of the endless order, each with its unlabelled ones."""
        batch = self.pictures.take(self.known[shuffled(np.arange(start, start + size), self.rows, seed=0)])
        beside = self.config.ratio
        if not beside:
            return batch
        positions = np.arange(start * beside, (start + size) * beside)
        pictures, hidden = self.take_unlabelled(shuffled(positions, self.pool, seed=1))
        shape = (size, beside)
        return batch | {"unlabelled": pictures.view(*shape, *pictures.shape[1:]), "hidden": hidden.view(shape)}

    def take_unlabelled(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Unlabelled pictures by their number in the pool, and the labels that are hidden."""
        own = places < len(self.hidden)
        found = self.pictures.take(self.hidden[places[own]])
        pictures, hidden = found["image"], found["label"]
        if self.more is None:
            return pictures, hidden
        others = self.more.take(self.more.places["train"][places[~own] - len(self.hidden)])["image"]
        order = torch.from_numpy((~own).argsort(kind="stable").argsort(kind="stable"))
        none = torch.full((len(others),), IGNORED)
        return torch.cat((pictures, others))[order], torch.cat((hidden, none))[order]

    def held_out(self, start: int, size: int) -> Batch:
        """Validation rows in the order of the source."""
        return self.pictures.held_out(start, size)

    def part(self, name: str) -> Batch:
        """All rows of train, validation or test, with their labels."""
        return self.pictures.part(name)


def choose(config: FewLabels, pictures: ImageRows) -> np.ndarray:
    """The places of the labelled pictures. Raises SanbuError for a number that does not fit."""
    train, classes = pictures.places["train"], pictures.space.classes
    if classes < 2:
        raise SanbuError(
            f"data.path: {config.path!r} has no labels of at least 2 classes; put pictures into a folder per class"
        )
    if not config.labels:
        return train
    if not classes <= config.labels <= len(train):
        raise SanbuError(
            f"data.labels: given {config.labels}, allowed: {classes} (one per class) to {len(train)}, or 0 for all"
        )
    chances = np.array([draw_chance(pictures.images[place], config.draw) for place in train])
    order, labels = train[chances.argsort(kind="stable")], pictures.labels
    by_class = [order[labels[order] == number] for number in range(classes)]
    counts = shares(config.labels, [len(places) for places in by_class], config.draw)
    chosen = [places[:count] for places, count in zip(by_class, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


def shares(labels: int, sizes: list[int], draw: int) -> list[int]:
    """How many of each class: equal, but for a remainder that goes to some classes, and for classes that have fewer."""
    counts = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda number: key("remainder", draw, number))
    while sum(counts) < labels:
        for number in order:
            if counts[number] < sizes[number] and sum(counts) < labels:
                counts[number] += 1
    return counts


def draw_chance(image: np.ndarray, draw: int) -> int:
    """A hash of the picture and the number of the draw."""
    salt = draw.to_bytes(8, "little")
    digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "little") >> 1
