"""What a model keeps of the tokens it has read, and the small protocol by which a strategy handles it.

A transformer keeps keys and values of every position, so that what was written too far is overwritten later. A
recurrent layer keeps a state of fixed size, which cannot be overwritten: it has to be told how many of the next tokens
each row reads. B rows, T time, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Kept(Protocol):
    """What one layer keeps of earlier tokens; `model.cache(rows, slots)` makes one per layer, for rows without any."""

    def first(self, slots: int) -> Kept:
        """What is kept of the first `slots` positions; the whole where it has no positions."""

    def keep(self, rows: Tensor) -> Kept:
        """What is kept of some rows, by number or by a mask."""

    def expect(self, reads_B: Tensor | None) -> None:
        """Tell how many of the tokens of the next call each row reads, the first ones; None: all."""


@dataclass
class State:
    """The state of a recurrent layer: tensors of fixed size, the row first. A call puts new tensors in their place."""

    tensors: tuple[Tensor, ...]
    reads: Tensor | None = None

    def first(self, slots: int) -> State:
        """The state itself: it has no positions."""
        return self

    def keep(self, rows: Tensor) -> State:
        """The state of some rows."""
        return State(tuple(tensor[rows] for tensor in self.tensors))

    def expect(self, reads_B: Tensor | None) -> None:
        """How many of the next tokens each row reads."""
        self.reads = reads_B


def state_at(history_BTD: Tensor, before_BD: Tensor, reads_B: Tensor | None) -> Tensor:
    """The state of each row after the tokens that it reads; `before` where it reads none."""
    if reads_B is None:
        return history_BTD[:, -1]
    whole = torch.cat((before_BD[:, None], history_BTD), 1)
    return whole[torch.arange(len(whole), device=whole.device), reads_B]


def starts_within(positions_BT: Tensor | None) -> Tensor | None:
    """starts_BT: where a document starts within a row; None if none does but at the beginning."""
    if positions_BT is None:
        return None
    starts = positions_BT == 0
    starts[:, 0] = False
    return None if bool((~starts).all()) else starts


def expect(cache: Sequence[Kept], reads_B: Tensor | None) -> None:
    """Tell every layer how many of the next tokens each row reads."""
    for layer in cache:
        layer.expect(reads_B)
