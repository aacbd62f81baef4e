"""The contract of data: a config describes the samples; `build` returns rows, a pure function of their position."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from sanbu.codecs.codec import Codec
from sanbu.config import Choice
from sanbu.space import Batch, Space

if TYPE_CHECKING:
    from torch import Tensor


def no_tokens(*shape: int) -> Tensor:
    """Zeros as whole numbers."""
    import torch

    return torch.zeros(shape, dtype=torch.long)


class Data(Protocol):
    """Rows of training data as a pure function of their position."""

    rows: int
    held_out_rows: int
    fingerprint: str  # hash of the source of the rows; a run can only resume with the same one

    @property
    def codec(self) -> Codec:
        """The codec that reads and shows these rows."""

    def batch(self, start: int, size: int) -> Batch:
        """Rows start .. start + size - 1 of the endless training order; axis 0 is the row."""

    def describe(self) -> str:
        """The amount of data in one short line."""

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in a fixed order; the last batch may have fewer than `size`."""


class DataConfig(Choice):
    """The training data of a recipe."""

    table: ClassVar[str] = "sanbu.data:KINDS"
    measure: ClassVar[str] = "objective"  # how runs are evaluated: an entry of sanbu.evaluation:MEASURES

    def space(self) -> Space:
        """The space of a sample. Reads at most the header of the data."""
        raise NotImplementedError

    def resolve(self) -> DataConfig:
        """This config with every `auto` replaced by its value in the data, so that a run can do without the data."""
        return self

    def build(self) -> Data:
        """The rows."""
        raise NotImplementedError

    def example(self, rows: int) -> Batch:
        """A batch of zeros with the names, shapes and types of the data's, as long as rows may be, to count memory."""
        raise NotImplementedError

    def codec(self, folder: Path) -> Codec:
        """The codec that was saved in a run folder."""
        raise NotImplementedError
