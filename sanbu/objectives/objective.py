"""The contract of step 2: an objective says how good one function is.

An objective is a record of small functions. Most give only `loss` and `count`; the rest have the plain meaning.
All randomness, and all that couples samples, happens in `experience` and `turns`, before a batch is split. `loss` is
deterministic and returns sums; a term's denominator is `count`, nowhere else. So accumulation, packing and data
parallelism give one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sanbu.noise import Noise

Batch = dict[str, Tensor]
Models = Mapping[str, Any]
Metrics = dict[str, tuple[Tensor, Tensor]]  # numerator and denominator


@dataclass(frozen=True)
class Loss:
    """`sums`: each term summed over the batch's elements. `metrics`: numerator and denominator, for reading only."""

    sums: dict[str, Tensor]
    metrics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


LossFunction = Callable[[Models, Batch], Loss]
Count = Callable[[Batch], dict[str, float]]


@dataclass(frozen=True)
class Turn:
    """One update of one player."""

    player: str
    batch: Batch
    loss: LossFunction
    count: Count


def nothing_attached(model: nn.Module) -> dict[str, nn.Module]:
    """Attach no further module."""
    return {}


def same(models: Models, batch: Batch, noise: Noise) -> Batch:
    """Learn from the batch as it is."""
    return batch


def each_row(batch: Batch) -> int:
    """How many rows a batch has."""
    return next(iter(batch.values())).shape[0]


@dataclass(frozen=True)
class Objective:
    """Step 2 as a record of functions; see docs/contracts.md for whole examples.

    loss(models, batch) -> Loss: deterministic sums.
    count(batch) -> denominators by term, known before the forward pass.
    players: name of a player -> the names of the modules it may change.
    additive: False makes the loop refuse to split a batch (a critic with batch norm, say).
    attach(model) -> modules beside the model: critic, value head, target.
    experience(models, batch, noise) -> what the round learns from: own samples, noised inputs. Reads the models as they are
        when the round begins; it is saved in a checkpoint, so what depends on old weights belongs here. Beside the models it is
        given "draw", which takes a condition and seeds and draws as the recipe's strategy does, and "read", from ids to text.
        models["model"].training is False where held-out rows are looked at, which then are one turn and change nothing.
    fixed(models, batch) -> what only rows and frozen modules decide, such as a reference's log-probabilities: computed once for every
        row and kept, where a run sees its rows more than once. Rows are then told apart by batch["row"].
    watched: the held-out figure by which the best round is known; lower is better.
    turns(models, batch, noise) -> updates of this round, in order; drawn again (and skipped) on a resume inside a round.
    """

    loss: LossFunction
    count: Count
    players: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"model": ("model",)})
    additive: bool = True
    attach: Callable[[nn.Module], dict[str, nn.Module]] = nothing_attached
    experience: Callable[[Models, Batch, Noise], Batch] = same
    turns: Callable[[Models, Batch, Noise], Iterator[Turn]] | None = None
    fixed: Callable[[Models, Batch], Batch] | None = None
    watched: str = "loss"

    def draw_turns(self, models: Models, batch: Batch, noise: Noise) -> Iterator[Turn]:
        """The turns of a round: the objective's own, or one update of the model on the whole batch."""
        if self.turns is not None:
            yield from self.turns(models, batch, noise)
        else:
            yield Turn("model", batch, self.loss, self.count)
