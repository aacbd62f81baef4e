"""The contract of a codec: the only place that knows what a person reads, sees or hears of a sample.

A codec is saved with a run, so a run needs no data to generate. Everything that differs by modality is asked here:
what is counted, what a terminal shows, what is written to disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sanbu.space import Batch, Draft

Written = dict[str, str | int]  # what an export wrote, for people and for --json


class Follower(Protocol):
    """Turns drafts into what a person reads, as they come."""

    @property
    def pieces(self) -> Sequence[Any]:
        """What the last draft added to each row: new text, or the picture as it stands."""

    def update(self, draft: Draft) -> Tensor:
        """Read a draft; returns the rows to end, bool by row."""

    def results(self) -> list[Any]:
        """What each row has become."""


class Codec(Protocol):
    """Between people and tensors. medium: "text", "image", ... unit: what is counted, in the plural."""

    medium: str
    unit: str

    def save(self, folder: Path) -> None:
        """Write into a run folder what `DataConfig.codec` reads from it."""

    def vocabulary(self) -> Sequence[bytes] | None:
        """What each token stands for, where samples are made of tokens; runs that work together must agree on it."""

    def request(self, prompt: str | None, label: str | None) -> Any:
        """The prompt for `condition` from command line options. Raises SanbuError for options that do not apply."""

    def condition(self, prompt: Any, rows: int) -> Batch:
        """What a strategy begins from, `rows` times each prompt; None asks for unconditional samples."""

    def follow(self, stop: Sequence[str] = ()) -> Follower:
        """A reader of drafts that ends rows at these texts."""

    def read(self, sample: Tensor) -> Any:
        """One sample as a person reads it: text, an array, a row."""

    def amount(self, batch: Batch) -> int:
        """How many units a batch of training rows holds."""

    def show(self, sample: Any) -> str:
        """What a terminal shows of one sample that was read; empty where it can show nothing."""

    def render(self, samples: Sequence[Any], path: Path) -> Path:
        """Write all samples into one file for people; the suffix is added. Returns the file."""

    def export(self, samples: Sequence[Any], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write each sample into a file of its own, with an overview; frames: all samples as they stood on the way."""


def stops_of(strategy: object) -> Sequence[str]:
    """The stop texts of a strategy's config, where it has some."""
    return getattr(strategy, "stop", ())
