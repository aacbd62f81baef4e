"""The kinds of data, and the space a sample lives in. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from sanbu.codecs.kinds import BPE, TokenizerConfig
from sanbu.config import Choice

if TYPE_CHECKING:
    from torch import Tensor

    from sanbu.strategies.strategy import Draft

    Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Space:
    """Where one sample lives: its shape, the size of its vocabulary (0: real numbers), the ids with a meaning."""

    shape: tuple[int, ...]
    vocabulary: int = 0
    end: int | None = None


class Follower(Protocol):
    """Turns drafts into what a person reads, as they come."""

    def update(self, draft: Draft) -> Tensor:
        """Read a draft; returns the rows to end, bool by row."""

    def results(self) -> list[Any]:
        """What each row has become."""


class Codec(Protocol):
    """Between people and tensors. It is saved with a run, so that a run needs no data to generate."""

    def save(self, folder: Path) -> None: ...

    def condition(self, prompt: Any, rows: int) -> Batch:
        """What a strategy begins from; `prompt` None asks for samples of the codec's own choosing."""

    def read(self, sample: Tensor) -> Any:
        """One sample as what a person reads: text, an array, a row."""

    def follow(self, strategy: Any) -> Follower:
        """A reader of drafts that ends rows where the strategy's config says so."""

    def render(self, samples: Sequence[Any], path: Path) -> Path:
        """Write what a person looks at; the suffix is added. Returns the file."""


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

    def space(self) -> Space:
        """Known without reading the data."""
        raise NotImplementedError

    def build(self) -> Data:
        raise NotImplementedError

    def codec(self, folder: Path) -> Codec:
        """The codec as a run folder keeps it."""
        raise NotImplementedError


class Text(DataConfig):
    """Text as rows of tokens; documents packed without loss and kept apart."""

    kind: Literal["text"] = "text"
    path: str = Field(
        "python", description="a file, a folder, hub:NAME, or python: the installed Python's own documentation"
    )
    field: str = Field("text", description="the field of JSONL and Parquet records that holds the text")
    tokenizer: TokenizerConfig = BPE()
    context: int = Field(256, ge=2, description="tokens a row")
    validation: float = Field(
        0.05, ge=0, lt=1, description="fraction of the text held out, by whole documents where there are many"
    )

    def space(self) -> Space:
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end())

    def build(self) -> Data:
        from sanbu.data.text import build

        return build(self)

    def codec(self, folder: Path) -> Codec:
        from sanbu.codecs.text import TextCodec

        return TextCodec.load(folder, self.tokenizer)
