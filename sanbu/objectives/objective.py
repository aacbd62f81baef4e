"""The contract of step 2: an objective says how good one function is.

An objective is a record of small functions. Most give only `loss` and `count`; the others have sensible defaults. All
randomness, and everything that couples samples, happens in `experience` and `turns`, before a batch is split. `loss`
is deterministic and returns sums; a term's denominator is `count`, nowhere else. So accumulation, packing and data
parallelism give one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sanbu.config import Choice
from sanbu.noise import Noise
from sanbu.space import Batch, Draft, Models


class ObjectiveConfig(Choice):
    """Step 2: what makes one function good."""

    table: ClassVar[str] = "sanbu.objectives:KINDS"
    families: ClassVar[tuple[str, ...]] = ()  # of models it can judge; empty: any

    def build(self) -> Objective:
        """The record of functions."""
        raise NotImplementedError

    def needs(self) -> tuple[str, ...]:
        """The parents that must be given."""
        return ()


# -- one round --------------------------------------------------------------------------------------------------------


def cannot_draw(condition: Batch, seeds: Tensor) -> Draft:
    """The default of `Round.draw`."""
    raise NotImplementedError("this round was made without a strategy, so nothing can be drawn in it")


@dataclass(frozen=True)
class Round:
    """What one round may use. The models are as they stand when the round begins.

    batch: rows of data; in `turns`, what `experience` returned. noise: random numbers of this round.
    draw(condition, seeds) -> the last Draft of the recipe's strategy. read(ids) -> one sample as a person reads it.
    learning: False while held-out rows are evaluated; then nothing may change, and one turn is enough.
    """

    models: Models
    batch: Batch
    noise: Noise
    draw: Callable[[Batch, Tensor], Draft] = cannot_draw
    read: Callable[[Tensor], Any] = Tensor.tolist
    learning: bool = True


Metrics = dict[str, tuple[Tensor, Tensor]]  # numerator and denominator


@dataclass(frozen=True)
class Loss:
    """`sums`: each term summed over the batch's elements. `metrics`: numerator and denominator, for reading only."""

    sums: dict[str, Tensor]
    metrics: Metrics = field(default_factory=dict)


LossFunction = Callable[[Models, Batch], Loss]
Count = Callable[[Batch], dict[str, float]]


@dataclass(frozen=True)
class Turn:
    """One update of one player."""

    player: str
    batch: Batch
    loss: LossFunction
    count: Count


# -- the record -------------------------------------------------------------------------------------------------------


def attach_nothing(model: nn.Module) -> dict[str, nn.Module]:
    """The default of `attach`: no further module."""
    return {}


def learn_from_batch(round: Round) -> Batch:
    """The default of `experience`: the batch as it is."""
    return round.batch


@dataclass(frozen=True)
class Objective:
    """Step 2 as a record of functions; docs/contracts.md has whole examples.

    loss(models, batch) -> Loss: deterministic sums. count(batch) -> denominators by term, known before the forward
    pass. players: name of a player -> the names of the modules it may change. additive: False makes the loop refuse
    to split a batch (a critic with batch norm, for example). attach(model) -> modules beside the model: critic, value
    head, target. experience(round) -> what the round learns from: the model's own samples, noised inputs. It reads
    the models as they are when the
        round begins and is saved in checkpoints, so whatever depends on the old weights belongs here.
    turns(round) -> the updates of this round, in order; drawn again (and skipped) on a resume inside a round.
    fixed(models, batch) -> what only rows and frozen modules decide, such as a reference's log-probabilities:
    computed once for each
        row and kept, where a run sees its rows more than once. Rows are then told apart by batch["row"].
    watched: the held-out metric by which the best round is chosen; lower is better.
    """

    loss: LossFunction
    count: Count
    players: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"model": ("model",)})
    additive: bool = True
    attach: Callable[[nn.Module], dict[str, nn.Module]] = attach_nothing
    experience: Callable[[Round], Batch] = learn_from_batch
    turns: Callable[[Round], Iterator[Turn]] | None = None
    fixed: Callable[[Models, Batch], Batch] | None = None
    watched: str = "loss"

    def draw_turns(self, round: Round) -> Iterator[Turn]:
        """The turns of a round: the objective's own, or one update of the model on the whole batch."""
        if self.turns is not None:
            yield from self.turns(round)
        else:
            yield Turn("model", round.batch, self.loss, self.count)


def row_count(batch: Batch) -> int:
    """How many rows a batch has."""
    return next(iter(batch.values())).shape[0]


def count_rows(batch: Batch) -> dict[str, float]:
    """The denominator of a term "rows" that is a mean over rows."""
    return {"rows": float(row_count(batch))}


# -- sums over batches ------------------------------------------------------------------------------------------------


class Totals:
    """Losses and counts added up over batches; `report` divides."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, float] = {}
        self.metrics: Metrics = {}

    def add(self, loss: Loss, counts: Mapping[str, float]) -> None:
        """One more batch."""
        add(self.sums, loss.sums)
        add_pairs(self.metrics, loss.metrics)
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0.0) + count

    def report(self) -> dict[str, float]:
        """`loss`, the sum of all terms each over its count, and every metric."""
        loss = sum(float(total) / max(self.counts[name], 1e-12) for name, total in self.sums.items())
        return {"loss": loss, **ratios(self.metrics)}


def evaluate(objective: Objective, rounds: Iterable[Round]) -> dict[str, float]:
    """The loss and the metrics of an objective over held-out rounds, whose `learning` is False. Nothing changes."""
    totals = Totals()
    with torch.no_grad():
        for held_out in rounds:
            experience = objective.experience(held_out)
            for turn in objective.draw_turns(replace(held_out, batch=experience)):
                totals.add(turn.loss(held_out.models, turn.batch), turn.count(turn.batch))
    return totals.report()


def add(totals: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add each value into a running total of the same name."""
    for name, value in more.items():
        totals[name] = totals[name] + value if name in totals else value


def add_pairs(pairs: Metrics, more: Metrics) -> None:
    """Add numerators and denominators into running pairs of the same name."""
    for name, (numerator, denominator) in more.items():
        before = pairs.get(name, (torch.zeros(()), torch.zeros(())))
        pairs[name] = (before[0] + numerator.detach(), before[1] + denominator.detach())


def ratios(pairs: Metrics) -> dict[str, float]:
    """Each metric as a number; one whose denominator is 0 is left out."""
    return {name: float(top / bottom) for name, (top, bottom) in pairs.items() if float(bottom)}
