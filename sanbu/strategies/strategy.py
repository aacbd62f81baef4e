"""The contract of a strategy: how samples are drawn from a model, for every model family.

`begin` makes a state from a condition and one seed per row; `advance` moves it by one step; `draft` gives the samples
as they are after that step. Every tensor in a state has the row axis first, so rows can be added and removed.
Streaming, progress, animation and counts of model evaluations are all derived from the drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sanbu.config import LARGEST, Choice, ConfigError, change
from sanbu.space import Batch, Draft, Models, Space


class StrategyConfig(Choice):
    """Step 4: how samples are drawn from the trained model."""

    table: ClassVar[str] = "sanbu.strategies:KINDS"
    families: ClassVar[tuple[str, ...]] = ()  # model families it can sample from; empty: any
    draws: ClassVar[bool] = True  # False if the result is a prediction about the input, not a sample
    at_once: ClassVar[int] = 100  # samples that are drawn together
    together: ClassVar[bool] = False  # True if samples of one prompt depend on each other, so that none is drawn alone

    def check(self, space: Space) -> None:
        """Raise ValueError, in one line, if this strategy cannot draw samples of the space."""

    def check_path(self, path: Any) -> None:
        """Raise ValueError, in one line, if this strategy cannot follow the noise path of the model."""

    def check_samples(self, count: int) -> None:
        """Raise ConfigError if this strategy cannot draw so many different samples of one prompt."""

    def changed(self, fields: Mapping[str, Any]) -> StrategyConfig:
        """This strategy with other values of some fields. Raises ConfigError, with the nearest match."""
        return change(self, fields, "strategy")

    def unfiltered(self) -> StrategyConfig:
        """This strategy without what changes the distribution of the model, for objectives that learn from samples."""
        return self

    def build(self, space: Space) -> Strategy:
        """The strategy for samples of this space."""
        raise NotImplementedError


class State(Protocol):
    """What a strategy keeps between steps. A caller may set `done_B` to end a row."""

    done: Tensor


class Strategy(Protocol):
    """Begin, advance, and a view of the state (`draft`)."""

    def begin(self, condition: Batch, seeds: Tensor) -> Any:
        """The state before the first step."""

    def advance(self, models: Models, state: Any) -> Any:
        """The state after one more step; may be the same object, modified in place."""

    def draft(self, state: Any) -> Draft:
        """The samples so far, and which of their elements are final."""


def generate(
    strategy: Strategy,
    models: Models,
    condition: Batch,
    seeds: Tensor,
    watch: Callable[[Draft], Tensor] | None = None,
) -> Iterator[Draft]:
    """Draw samples and yield the draft of each step. `watch` may end rows early: it returns a bool per row.

    Condition and seeds are moved to the device of `models["model"]`. The mode of that model (training or evaluation)
    is not changed.
    """
    device = device_of(models["model"])
    condition = {name: tensor.to(device) for name, tensor in condition.items()}
    state = strategy.begin(condition, seeds.to(device))
    while not bool(state.done.all()):
        with torch.no_grad():
            state = strategy.advance(models, state)
        draft = strategy.draft(state)
        if watch is not None:
            state.done |= watch(draft)
        yield draft


def consecutive(seed: int, count: int) -> Tensor:
    """Seeds of so many rows. Raises ConfigError for one that is out of range."""
    if not 0 <= seed <= LARGEST - count:
        raise ConfigError(f"seed: given {seed}, allowed: 0 to {LARGEST - count}")
    return torch.arange(seed, seed + count)


def rows_drawn(draft: Draft) -> float:
    """How many rows have been drawn; a row that is not done counts by what is final of it."""
    parts = draft.committed.flatten(1).float().mean(1)
    return float(torch.where(draft.done, 1.0, parts).sum())


def with_progress(drafts: Iterator[Draft], progress: Callable[[float], object]) -> Iterator[Draft]:
    """The same drafts. progress: told of the rows that each has drawn more than the one before."""
    drawn, rows = 0.0, 0
    for draft in drafts:
        yield draft
        now, rows = rows_drawn(draft), len(draft.done)
        progress(now - drawn)
        drawn = now
    progress(rows - drawn)


def last(drafts: Iterator[Draft]) -> Draft:
    """The last draft of `generate`. Raises ValueError if there is none."""
    draft = None
    for draft in drafts:
        pass
    if draft is None:
        raise ValueError("nothing was generated: every row was already done at the start")
    return draft


def draw(
    strategy: Strategy,
    models: Models,
    condition: Batch,
    seeds: Tensor,
    watch: Callable[[Draft], Tensor] | None = None,
) -> Draft:
    """The last draft of `generate`, with the model in evaluation mode during the call.

    A strategy with a method keep(state, rows) -> state of these rows stops computing rows that are done.
    """
    model = models["model"]
    training = model.training
    model.eval()
    try:
        if watch is None and hasattr(strategy, "keep"):
            return draw_fewer(strategy, models, condition, seeds)
        return last(generate(strategy, models, condition, seeds, watch))
    finally:
        model.train(training)


def draw_fewer(strategy: Any, models: Models, condition: Batch, seeds: Tensor) -> Draft:
    """The last draft; rows that are done leave the batch whenever they are at least half of it."""
    device = device_of(models["model"])
    moved = {name: tensor.to(device) for name, tensor in condition.items()}
    state = strategy.begin(moved, seeds.to(device))
    rows, finished = torch.arange(len(seeds), device=device), []
    if bool(state.done.all()):
        return last(iter(()))
    while len(rows):
        with torch.no_grad():
            state = strategy.advance(models, state)
        done = state.done.clone()
        if 2 * int(done.sum()) < len(done):
            continue
        finished.append((rows[done], select(strategy.draft(state), done)))
        rows, state = rows[~done], strategy.keep(state, ~done)
    order = torch.cat([places for places, _ in finished]).argsort()
    return select(join([draft for _, draft in finished]), order)


def select(draft: Draft, rows: Tensor) -> Draft:
    """Some rows of a draft, by number or by a mask."""
    return each_tensor(lambda tensors: tensors[0][rows], [draft])


def join(drafts: list[Draft]) -> Draft:
    """The rows of several drafts, one after another."""
    return each_tensor(torch.cat, drafts)


def each_tensor(function: Callable[[list[Tensor]], Tensor], drafts: list[Draft]) -> Draft:
    """A draft whose tensors are made of the same tensor of each of these drafts."""
    made = {name: function([getattr(draft, name) for draft in drafts]) for name in ("sample", "committed", "done")}
    record = {name: function([draft.record[name] for draft in drafts]) for name in drafts[0].record}
    evaluations = function([draft.evaluations for draft in drafts])
    return Draft(**made, evaluations=evaluations, stage=drafts[-1].stage, record=record)


def device_of(model: object) -> torch.device:
    """The device of a module's weights; the CPU for a module without weights and for a plain function."""
    tensors = chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else iter(())
    first = next(tensors, None)
    return torch.device("cpu") if first is None else first.device
