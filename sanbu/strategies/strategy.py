"""The contract of a strategy: how a sample is drawn, whatever the family.

`begin` makes a state from a condition and one seed a row; `advance` moves it by one step; `draft` shows where it stands.
Every tensor in a state has the row axis first, so rows can join and leave. Streaming, progress, animation and counts of
model evaluations all come from the drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

Batch = dict[str, Tensor]
Models = Mapping[str, Any]


@dataclass(frozen=True)
class Draft:
    """What a person or a page may see of a state; valid until the next `advance`.

    sample: row axis first. committed: bool, of the sample's leading shape: what will not change any more.
    done_B: rows that are finished. evaluations_B: calls of the model so far, by row. stage: a name for cascades.
    record: further tensors by row, such as log-probabilities.
    """

    sample: Tensor
    committed: Tensor
    done: Tensor
    evaluations: Tensor
    stage: str = ""
    record: dict[str, Tensor] = field(default_factory=dict)


class State(Protocol):
    """What a strategy carries from step to step. `done_B` may be set from outside to end a row."""

    done: Tensor


class Strategy(Protocol):
    """Two functions and a view."""

    def begin(self, condition: Batch, seeds: Tensor) -> Any: ...

    def advance(self, models: Models, state: Any) -> Any: ...

    def draft(self, state: Any) -> Draft: ...


def generate(
    strategy: Strategy,
    models: Models,
    condition: Batch,
    seeds: Tensor,
    watch: Callable[[Draft], Tensor] | None = None,
) -> Iterator[Draft]:
    """Draw samples, yielding each draft; `watch` may end rows early by returning a bool for each."""
    state = strategy.begin(condition, seeds)
    while not bool(state.done.all()):
        with torch.no_grad():
            state = strategy.advance(models, state)
        draft = strategy.draft(state)
        if watch is not None:
            state.done |= watch(draft)
        yield draft


def last(drafts: Iterator[Draft]) -> Draft:
    """The final draft of a generation."""
    draft = None
    for draft in drafts:
        pass
    if draft is None:
        raise ValueError("nothing was generated: every row was finished from the start")
    return draft
