"""The contract of a codec, which converts between samples and what people read, see or hear.

A codec is saved with a run, so a run can generate without its data. Everything that depends on the modality is a
method of the codec: the unit of counting, the output in a terminal, the files on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sanbu.space import Batch, Draft

Written = dict[str, str | int]  # summary of an export, for the console and for --json


class Follower(Protocol):
    """Converts drafts, while they are drawn, into text, pictures or arrays."""

    @property
    def pieces(self) -> Sequence[Any]:
        """What the last draft added to each row: new text, or the current picture."""

    def update(self, draft: Draft) -> Tensor:
        """Read a draft. Returns which rows must end, bool [B]."""

    def results(self) -> list[Any]:
        """The result of each row."""


class Codec(Protocol):
    """Converts between people and tensors. medium: "text", "image", ... unit: plural name of what is counted."""

    medium: str
    unit: str

    def save(self, folder: Path) -> None:
        """Write the files that `DataConfig.codec` reads into a run folder."""

    def vocabulary(self) -> Sequence[bytes] | None:
        """The bytes of each token, or None without tokens; runs that are used together must agree on it."""

    def request(self, prompt: str | None, label: str | None) -> Any:
        """The prompt for `condition` from command line options. Raises SanbuError for options that do not apply."""

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """The condition of a strategy, `rows` times each prompt; None means unconditional samples.

        seed: of the first row. What differs between rows must follow from it, so that a row is the same alone.
        """

    def follow(self, stop: Sequence[str] = ()) -> Follower:
        """A follower of drafts that ends rows at the stop texts."""

    def read(self, sample: Tensor) -> Any:
        """One sample as text or array."""

    def amount(self, batch: Batch) -> int:
        """The number of units in a batch of training rows."""

    def show(self, sample: Any) -> str:
        """A sample, as returned by `read`, for the terminal; empty if a terminal cannot show it."""

    def render(self, samples: Sequence[Any], path: Path) -> Path:
        """Write all samples into one file; adds the suffix to `path`. Returns the file."""

    def export(self, samples: Sequence[Any], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write one file per sample and an overview. frames: all samples at intermediate steps."""


def stops_of(strategy: object) -> Sequence[str]:
    """The stop texts of the config of a strategy; empty if it has none."""
    return getattr(strategy, "stop", ())


def evenly(drafts: list[Tensor], most: int) -> list[Tensor]:
    """At most `most` items, evenly spaced, the last one included."""
    if len(drafts) <= most:
        return drafts
    gap = (len(drafts) - 1) / (most - 1)
    return [drafts[round(number * gap)] for number in range(most)]


def text_before(codec: Codec, prompt: str | None) -> str:
    """What is shown before a text that was drawn: the prompt, unless the codec says otherwise (`before`)."""
    before = getattr(codec, "before", None)
    return str(before(prompt)) if before is not None else prompt or ""


def read_by(objective: object, codec: Any) -> Codec:
    """The codec of a run; where the objective of a predictor says what its outputs are (`read`), it reads them so."""
    reader = getattr(objective, "read", None)
    return codec.reading(reader) if reader is not None and hasattr(codec, "reading") else codec
