"""The kinds of data, and the space a sample lives in. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sanbu.codecs.kinds import BPE, TokenizerConfig
from sanbu.config import Choice

if TYPE_CHECKING:
    from torch import Tensor

    from sanbu.strategies.strategy import Draft

    Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Space:
    """Where one sample lives: its shape, the size of its vocabulary (0: real numbers), the ids with a meaning.

    Of pictures the shape is C, H, W and the vocabulary counts the levels of a channel. classes: how many labels there are;
    the label `classes` itself stands for none given. unlabelled: whether rows without a label are learnt from too.
    """

    shape: tuple[int, ...]
    vocabulary: int = 0
    end: int | None = None
    classes: int = 0
    unlabelled: bool = True


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

    def resolve(self) -> Text:
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve()})

    def build(self) -> Data:
        from sanbu.data.text import build

        return build(self)

    def codec(self, folder: Path) -> Codec:
        from sanbu.codecs.text import TextCodec

        return TextCodec.load(folder, self.tokenizer)


class Images(DataConfig):
    """Pictures, with labels where they have any; the split is fixed by a hash of each picture."""

    kind: Literal["images"] = "images"
    path: str = Field(
        "digits", description="digits (ships with scikit-learn), a folder, .zip, .npz, .parquet, idx3-ubyte, or hub:NAME"
    )
    shape: tuple[int, int, int] | Literal["auto"] = Field("auto", description="channels, height, width to bring all to")
    levels: int | Literal["auto"] = Field(
        "auto", description="values of a channel; fewer than stored quantises, 2 draws each pixel with its brightness"
    )
    classes: int | Literal["auto"] = Field("auto", description="labels; 0 leaves them out")
    validation: float = Field(0.1, ge=0, lt=1, description="fraction held out to choose by")
    test: float = Field(0.1, ge=0, lt=1, description="fraction held out to report on")
    flip: bool = Field(False, description="mirror half of the training rows")
    shift: int = Field(0, ge=0, description="move training rows by up to so many pixels")
    drop_label: float = Field(0.0, ge=0, lt=1, description="fraction of training rows without label; guidance needs some")

    @field_validator("shape", mode="after")
    @classmethod
    def _positive(cls, shape: Any) -> Any:
        if shape != "auto" and (shape[0] not in (1, 3) or min(shape) < 1):
            raise ValueError("channels must be 1 or 3, height and width at least 1")
        return shape

    @field_validator("levels", "classes", mode="after")
    @classmethod
    def _allowed(cls, value: Any, info: ValidationInfo) -> Any:
        if value != "auto" and not (2 <= value <= 256 if info.field_name == "levels" else value >= 0):
            raise ValueError("levels must be between 2 and 256" if info.field_name == "levels" else "classes count from 0")
        return value

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self

    def stored(self) -> int:
        """How many values a channel has where it is stored."""
        return 17 if self.path == "digits" else 256

    def resolve(self) -> Images:
        if "auto" not in (self.shape, self.levels, self.classes):
            return self
        from sanbu.data.pictures import look

        found = look(self.path)
        return self.model_copy(
            update={
                "shape": found.shape if self.shape == "auto" else self.shape,
                "levels": found.levels if self.levels == "auto" else self.levels,
                "classes": found.classes if self.classes == "auto" else self.classes,
            }
        )

    def space(self) -> Space:
        if self.path == "digits":  # known by heart, so that a recipe is shown at once
            known: tuple[Any, int, int] = ((1, 8, 8), 17, 10)
            mine = zip((self.shape, self.levels, self.classes), known, strict=True)
            found: list[Any] = [other if own == "auto" else own for own, other in mine]
        else:
            config = self.resolve()
            found = [config.shape, config.levels, config.classes]
        shape, levels, classes = found
        return Space(shape, levels, classes=classes, unlabelled=self.drop_label > 0 or not classes)

    def build(self) -> Data:
        from sanbu.data.images import build

        return build(self)

    def codec(self, folder: Path) -> Codec:
        from sanbu.codecs.images import ImageCodec

        return ImageCodec.load(folder, self.space())
