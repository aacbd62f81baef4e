"""Rows of tensors from a safetensors file, for objectives of your own."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.codec import Codec
from sanbu.codecs.numbers import NumbersCodec
from sanbu.config import SanbuError
from sanbu.data.data import Data, DataConfig
from sanbu.data.order import shuffled
from sanbu.files import fingerprint, read_tensors
from sanbu.noise import key
from sanbu.space import Batch, Space


class Rows(DataConfig):
    """Tensors whose axis 0 is the row; the first by name defines the shape of a sample."""

    kind: Literal["rows"] = "rows"
    path: str = Field(description="safetensors file; sanbu.data.rows(x=..., y=...) writes one")
    validation: float = Field(0.1, ge=0, lt=1, description="fraction of rows held out")
    shape: tuple[int, ...] | Literal["auto"] = Field("auto", description="shape of one sample; auto reads the file")
    vocabulary: int | Literal["auto"] = Field(
        "auto", description="number of tokens of integer samples, 0 for real-valued ones; auto reads the file"
    )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name. Raises SanbuError when the file is missing."""
        if not Path(self.path).is_file():
            raise SanbuError(f"data.path: {self.path!r} does not exist; sanbu.data.rows(x=...) writes such a file")
        return dict(sorted(read_tensors(Path(self.path)).items()))

    def resolve(self) -> Rows:
        if self.shape != "auto" and self.vocabulary != "auto":
            return self
        first = next(iter(self.tensors().values()))
        vocabulary = 0 if first.is_floating_point() else int(first.max()) + 1
        known = {"shape": tuple(first.shape[1:]), "vocabulary": vocabulary}
        return self.model_copy(update={name: value for name, value in known.items() if getattr(self, name) == "auto"})

    def space(self) -> Space:
        found = self.resolve()
        assert found.shape != "auto" and found.vocabulary != "auto"
        return Space(found.shape, found.vocabulary)

    def build(self) -> Data:
        return TensorRows(self)

    def codec(self, folder: Path) -> Codec:
        return NumbersCodec()


def hash_chance(number: int) -> float:
    """A hash of the row number as a number in [0, 1)."""
    return (key("rows", number) & 0xFFFFFFFF) / 2**32


class TensorRows:
    """Rows of the file; rows are held out by a hash of their number."""

    def __init__(self, config: Rows) -> None:
        self.tensors, self.codec = config.tensors(), NumbersCodec()
        self.fingerprint = fingerprint([Path(config.path)])
        count = len(next(iter(self.tensors.values())))
        chances = np.array([hash_chance(number) for number in range(count)])
        self.places = {
            "train": np.flatnonzero(chances >= config.validation),
            "held_out": np.flatnonzero(chances < config.validation),
        }
        self.rows, self.held_out_rows = (len(places) for places in self.places.values())
        if not self.rows:
            raise SanbuError(
                f"data.path: {config.path!r} has {count} rows, none of them for training;"
                " lower data.validation or add rows"
            )

    @cached_property
    def names(self) -> str:
        """Names and shapes of the tensors."""
        shapes = {name: list(tensor.shape[1:]) for name, tensor in self.tensors.items()}
        return ", ".join(f"{name} {shape}" for name, shape in shapes.items())

    def describe(self) -> str:
        """Numbers of rows, names and shapes of the tensors."""
        return f"{self.rows:,} rows of {self.names}, {self.held_out_rows:,} held out"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        order = shuffled(np.arange(start, start + size), self.rows, seed=0)
        return self._take(self.places["train"][order])

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in the order of the file."""
        return self._take(self.places["held_out"][start : start + size])

    def _take(self, places: np.ndarray) -> Batch:
        index = torch.from_numpy(places)
        return {name: tensor[index] for name, tensor in self.tensors.items()}
