"""The contract of a strategy: how a sample is drawn, whatever the family of the model.

`begin` makes a state from a condition and one seed per row; `advance` moves it by one step; `draft` shows where it
stands. Every tensor in a state has the row axis first, so rows can join and leave. Streaming, progress, animation and
counts of model evaluations all come from the drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sanbu.config import Choice
from sanbu.space import Batch, Draft, Models, Space


class StrategyConfig(Choice):
    """How samples are drawn from a function once it is found."""

    table: ClassVar[str] = "sanbu.strategies:KINDS"
    families: ClassVar[tuple[str, ...]] = ()  # of models it can draw from; empty: any
    draws: ClassVar[bool] = True  # False where the result is a prediction about the input, not a sample

    def check(self, space: Space) -> None:
        """Raise ValueError, in one line, when samples of the space cannot be drawn like this."""

    def build(self, space: Space) -> Strategy:
        """The strategy for samples of this space."""
        raise NotImplementedError


class State(Protocol):
    """What a strategy carries from step to step. `done_B` may be set from outside to end a row."""

    done: Tensor


class Strategy(Protocol):
    """Two functions and a view."""

    def begin(self, condition: Batch, seeds: Tensor) -> Any:
        """The state before the first step."""

    def advance(self, models: Models, state: Any) -> Any:
        """The state one step later; it may be the same object, written in place."""

    def draft(self, state: Any) -> Draft:
        """What can be seen of the state."""


def generate(
    strategy: Strategy,
    models: Models,
    condition: Batch,
    seeds: Tensor,
    watch: Callable[[Draft], Tensor] | None = None,
) -> Iterator[Draft]:
    """Draw samples, yielding each draft. `watch` may end rows early by returning a bool per row.

    Condition and seeds are moved to the device of `models["model"]`, whose mode (training or evaluation) is left as
    it is.
    """
    device = device_of(models["model"])
    state = strategy.begin({name: tensor.to(device) for name, tensor in condition.items()}, seeds.to(device))
    while not bool(state.done.all()):
        with torch.no_grad():
            state = strategy.advance(models, state)
        draft = strategy.draft(state)
        if watch is not None:
            state.done |= watch(draft)
        yield draft


def last(drafts: Iterator[Draft]) -> Draft:
    """The final draft of a generation. Raises ValueError when there is none."""
    draft = None
    for draft in drafts:
        pass
    if draft is None:
        raise ValueError("nothing was generated: every row was finished from the start")
    return draft


def draw(
    strategy: Strategy,
    models: Models,
    condition: Batch,
    seeds: Tensor,
    watch: Callable[[Draft], Tensor] | None = None,
) -> Draft:
    """The last draft of `generate`, with the model in evaluation mode meanwhile."""
    model = models["model"]
    learning = model.training
    model.eval()
    try:
        return last(generate(strategy, models, condition, seeds, watch))
    finally:
        model.train(learning)


def device_of(model: object) -> torch.device:
    """Where a module's weights are; the CPU where it has none, and for a plain function."""
    tensors = chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else iter(())
    first = next(tensors, None)
    return torch.device("cpu") if first is None else first.device
