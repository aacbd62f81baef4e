"""The contract of step 2: an objective says how good one function is.

An objective is a record of small functions. Most define only `loss` and `count`; the others have defaults. All
randomness, and everything that couples samples, happens in `experience` and `turns`, before a batch is split. `loss`
is deterministic and returns sums; the denominator of each term comes from `count` alone. So gradient accumulation,
packing and data parallelism give the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sanbu.config import Choice
from sanbu.noise import Noise
from sanbu.space import Batch, Draft, Models, row_count


class ObjectiveConfig(Choice):
    """Step 2: the measure of how good a function is."""

    table: ClassVar[str] = "sanbu.objectives:KINDS"
    families: ClassVar[tuple[str, ...]] = ()  # model families it accepts; empty: any
    parent_families: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # of parents it calls, by name; missing: any
    rollouts: ClassVar[bool] = False  # whether it learns from samples of the model
    measure: ClassVar[str] = "objective"  # of runs that do not draw: an entry of sanbu.evaluation:MEASURES

    def build(self) -> Objective:
        """The objective, a record of functions."""
        raise NotImplementedError

    def needs(self) -> tuple[str, ...]:
        """The names of the required parents."""
        return ()


# -- one round --------------------------------------------------------------------------------------------------------


def cannot_draw(condition: Batch, seeds: Tensor) -> Draft:
    """The default of `Round.draw`."""
    raise NotImplementedError("this Round has no strategy to draw with; pass draw=")


Over = Callable[[Callable[[Tensor], Batch], Sequence[Tensor]], Batch]


def over_all(work: Callable[[Tensor], Batch], parts: Sequence[Tensor]) -> Batch:
    """The rows of work(rows) of all parts, in order: the default of `Round.over`."""
    found = [work(rows) for rows in parts]
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


@dataclass(frozen=True)
class Round:
    """The inputs of a round. The models are in their state at the beginning of the round.

    batch: rows of data; in `turns`, what `experience` returned. noise: random numbers of this round.
    draw(condition, seeds) -> the last Draft of the recipe's strategy. read(ids) -> one sample as text or array.
    over(work, parts) -> the rows of work(part) of all parts, in order. The parts are row numbers of a rollout that all
    processes have and divide; work calls frozen models. learning: False while held-out rows are evaluated; then no
    state may change, and one turn is enough.
    """

    models: Models
    batch: Batch
    noise: Noise
    draw: Callable[[Batch, Tensor], Draft] = cannot_draw
    read: Callable[[Tensor], Any] = Tensor.tolist
    over: Over = over_all
    learning: bool = True


Metrics = dict[str, tuple[Tensor, Tensor]]  # numerator and denominator


@dataclass(frozen=True)
class Loss:
    """sums: each term, summed over the batch. metrics: numerators and denominators, for reports only."""

    sums: dict[str, Tensor]
    metrics: Metrics = field(default_factory=dict)

    def cpu(self) -> Loss:
        """The same in CPU memory, without gradients."""
        sums = {name: value.detach().cpu() for name, value in self.sums.items()}
        return Loss(sums, {name: (above.detach().cpu(), below.cpu()) for name, (above, below) in self.metrics.items()})


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
    to split a batch (a critic with batch norm, for example). attach(model) -> further modules: critic, value head,
    target. experience(round) -> the training batch of the round: samples of the model, noised inputs. It uses the
    models as they are at the beginning of the round and is saved in checkpoints, so everything that depends on the old
    weights belongs here. turns(round) -> the updates of this round, in order; on a resume within a round they are
    generated again and those already done are skipped. fixed(models, batch) -> values that depend on rows and frozen
    modules alone, such as log-probabilities under a reference; computed once per row and cached by batch["row"] if a
    run repeats its rows. watched: the held-out metric that selects the best round; lower is better. alone: True if
    `experience` treats each row alone, so that several processes can do it for their own rows.
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
    alone: bool = False

    @property
    def couples(self) -> bool:
        """Whether rows may meet before the loss, so that every process needs all rows of a round."""
        plain = self.experience is learn_from_batch
        return self.turns is not None or not (plain or self.alone)

    def draw_turns(self, round: Round) -> Iterator[Turn]:
        """The turns of a round: the objective's own, or one update of the model on the whole batch."""
        if self.turns is not None:
            yield from self.turns(round)
        else:
            yield Turn("model", round.batch, self.loss, self.count)


def count_rows(batch: Batch) -> dict[str, float]:
    """The denominator of a term "rows" that is a mean over rows."""
    return {"rows": float(row_count(batch))}


# -- sums over batches ------------------------------------------------------------------------------------------------


class Totals:
    """Sums of losses and counts over batches; `report` divides them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, float] = {}
        self.metrics: Metrics = {}

    def add(self, loss: Loss, counts: Mapping[str, float]) -> None:
        """Add a batch."""
        add(self.sums, loss.sums)
        add_pairs(self.metrics, loss.metrics)
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0.0) + count

    def report(self) -> dict[str, float]:
        """All metrics and `loss`, the sum over terms of total / count."""
        loss = sum(float(total) / max(self.counts[name], 1e-12) for name, total in self.sums.items())
        return {"loss": loss, **ratios(self.metrics)}


def evaluate(objective: Objective, rounds: Iterable[Round]) -> dict[str, float]:
    """The loss and the metrics of an objective over held-out rounds, whose `learning` is False."""
    return report(losses(objective, held_out) for held_out in rounds)


def report(rounds: Iterable[list[tuple[Loss, dict[str, float]]]]) -> dict[str, float]:
    """The loss and the metrics over the losses and denominators of several rounds."""
    totals = Totals()
    for found in rounds:
        for loss, counts in found:
            totals.add(loss, counts)
    return totals.report()


def losses(objective: Objective, held_out: Round) -> list[tuple[Loss, dict[str, float]]]:
    """The loss and the denominators of each turn of a held-out round."""
    with torch.no_grad():
        experience = objective.experience(held_out)
        turns = objective.draw_turns(replace(held_out, batch=experience))
        return [(turn.loss(held_out.models, turn.batch).cpu(), turn.count(turn.batch)) for turn in turns]


def add(totals: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add each value to the running total of the same name."""
    for name, value in more.items():
        totals[name] = totals[name] + value if name in totals else value


def add_pairs(pairs: Metrics, more: Metrics) -> None:
    """Add numerators and denominators to the running pairs of the same name."""
    for name, (numerator, denominator) in more.items():
        before = pairs.get(name, (torch.zeros(()), torch.zeros(())))
        pairs[name] = (before[0] + numerator.detach(), before[1] + denominator.detach())


def ratios(pairs: Metrics) -> dict[str, float]:
    """Each metric as a number; metrics with denominator 0 are left out."""
    return {name: float(top / bottom) for name, (top, bottom) in pairs.items() if float(bottom)}
