"""The contract of data: a config says where a sample lives; `build` gives rows as a pure function of their position."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from sanbu.codecs.codec import Codec
from sanbu.config import Choice
from sanbu.space import Batch, Space


class Data(Protocol):
    """Rows of training data as a pure function of their position."""

    rows: int
    held_out_rows: int
    fingerprint: str  # of what the rows are made from: a run resumes on no other

    @property
    def codec(self) -> Codec:
        """Between people and these rows."""

    def batch(self, start: int, size: int) -> Batch:
        """Rows start .. start + size - 1 of the endless training order; sample axis first."""

    def describe(self) -> str:
        """How much there is, in a few words for a person."""

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in their own order; fewer than `size` at the end."""


class DataConfig(Choice):
    """What we learn from."""

    table: ClassVar[str] = "sanbu.data:KINDS"
    measure: ClassVar[str] = "objective"  # how runs are evaluated: an entry of sanbu.evaluation:MEASURES

    def space(self) -> Space:
        """Known without reading the data, or from a look at its header."""
        raise NotImplementedError

    def resolve(self) -> DataConfig:
        """This config with every `auto` turned into what the data says, so that a run needs the data no more."""
        return self

    def build(self) -> Data:
        raise NotImplementedError

    def codec(self, folder: Path) -> Codec:
        """The codec as a run folder keeps it."""
        raise NotImplementedError
