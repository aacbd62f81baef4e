"""What travels between the choices: spaces, batches, models by name, and drafts of samples. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Batch = dict[str, Tensor]  # axis 0 of every tensor is the row
else:
    Batch = dict[str, Any]
Models = Mapping[str, Any]  # modules by name; a search may put another function in a model's place
IGNORED = -100  # a target that teaches nothing


@dataclass(frozen=True)
class Space:
    """Where one sample lives: its shape, the size of its vocabulary (0: real numbers), the ids with a meaning.

    For pictures the shape is C, H, W and the vocabulary counts the intensity levels of a channel. classes: how many
    labels there are; the label `classes` itself means that none is given. unlabelled: whether rows without a label
    are trained on too. other_ends: further ids that end a sample.

    For tables the shape is that of the features x, `columns` describes the cells of a row (sanbu.codecs.columns), and
    `target` is the place of the column to predict, -1 without one. Where rows are coded as real numbers, the shape is
    that of the code, and `code` says how (sanbu.codecs.row_code.RowCode).

    For sound, `mel` is the log-mel spectrogram that goes with a wave (sanbu.layers.spectrogram.Mel).

    Where not every sequence of tokens is a sample, `grammar(tokens_BS, length_B)` says which tokens may follow, bool
    [B, V]; no others are drawn.
    """

    shape: tuple[int, ...]
    vocabulary: int = 0
    end: int | None = None
    classes: int = 0
    unlabelled: bool = True
    other_ends: tuple[int, ...] = ()
    columns: tuple[Any, ...] = ()
    target: int = -1
    code: Any = None
    mel: Any = None
    grammar: Any = None

    @property
    def ends(self) -> tuple[int, ...]:
        """Every id that ends a sample, `end` first."""
        return tuple(dict.fromkeys(i for i in (self.end, *self.other_ends) if i is not None))


@dataclass(frozen=True)
class Draft:
    """The visible part of a strategy's state; valid until the next `advance`.

    sample: row axis first. committed: bool, of the sample's leading shape: what will not change any more. done_B:
    rows that are finished. evaluations_B: calls of the model so far, by row. stage: the name of the stage in a
    cascade. record: further tensors by row, such as log-probabilities.
    """

    sample: Tensor
    committed: Tensor
    done: Tensor
    evaluations: Tensor
    stage: str = ""
    record: dict[str, Tensor] = field(default_factory=dict)


def row_count(batch: Batch) -> int:
    """The number of rows in a batch."""
    return next(iter(batch.values())).shape[0]
