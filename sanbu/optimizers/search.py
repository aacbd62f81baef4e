"""The contract of step 3: a search looks for the best function of a problem.

Gradient methods call `problem.backward`; genetic search and boosting call `problem.value` with other functions in the
place of the model. A search owns its state; the loop owns the search.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from sanbu.config import Choice, SanbuError
from sanbu.noise import Noise
from sanbu.objectives.objective import Loss, LossFunction, Turn, add, add_pairs, ratios
from sanbu.space import Batch, Models, row_count

Metrics = dict[str, float]
WITHOUT_GRADIENT = ("genetic", "evolution", "snes", "cma", "diagonal-cma")  # searches by values alone


class NotFinite(SanbuError):
    """A loss became NaN or infinite, or rose more than the schedule allows."""


class OptimizerConfig(Choice):
    """Step 3: the search for the best function of a player."""

    table: ClassVar[str] = "sanbu.optimizers:KINDS"

    def resolve(self, rate: float) -> Self:
        """This config with `rate` in place of an `auto` learning rate."""
        if getattr(self, "learning_rate", None) != "auto":
            return self
        return self.model_copy(update={"learning_rate": rate})

    def evaluations(self, parameters: int) -> int:
        """How often a step computes the loss of a model with so many parameters; a gradient counts as one."""
        return 1

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        """The search over the parameters of these modules, for a run of `steps` rounds."""
        raise NotImplementedError


class Search(Protocol):
    """The search of a player. `step` makes one update and returns metrics; the state has only tensors and numbers."""

    def step(self, problem: Problem) -> Metrics: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Sums = dict[str, Tensor]
Pairs = dict[str, tuple[Tensor, Tensor]]


class Problem:
    """A turn as a search uses it: its gradient, or its value for other functions.

    noise: random numbers for the search itself, such as mutations, keyed by the step.
    scope: entered around each forward pass (precision). seed(micro): called before each micro-batch (dropout).
    round: the number of the round, which sets the learning rate; a round may have many turns.
    ranks: what other processes have a part in; the batch of the turn has the rows of this one.
    idle: further micro-batches that count nothing, so that all processes make the same number of passes.
    """

    def __init__(
        self,
        models: Models,
        turn: Turn,
        learners: Mapping[str, nn.Module],
        noise: Noise,
        micro_batch: int | None = None,
        scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        seed: Callable[[int], None] = lambda micro: None,
        round: int | None = None,
        ranks: Ranks | None = None,
        idle: Sequence[Batch] = (),
    ) -> None:
        self.models, self.turn, self.learners, self.noise = models, turn, learners, noise
        self.micro_batch, self.scope, self.seed = micro_batch, scope, seed
        self.round, self.ranks, self.idle = round, ranks or ONE, idle
        self.counts = self.ranks.count(turn)

    def backward(self) -> Metrics:
        """Add the gradient of the turn to the `.grad` of the learners, over micro-batches with one denominator."""
        with only_learning(self.models, self.learners, self.ranks.freezes):
            totals, pairs = self.ranks.passes(self)
        return self._report(*self.ranks.total(totals, pairs))

    def value(self, replace: Mapping[str, Callable[..., Any]] | None = None) -> Tensor:
        """The loss of the turn, a scalar, with other functions in place of the named models."""
        models = {**self.models, **(replace or {})}
        found: Sums = {}
        for micro, (loss, batch) in enumerate(self.micro_batches()):
            self.seed(micro)
            with self.scope():
                add(found, self.terms(loss(models, batch).sums))
        found, _ = self.ranks.total(found, {})
        return torch.as_tensor(sum(found.values()))

    def rows_at_once(self) -> int:
        """The number of rows in a forward pass."""
        rows = row_count(self.turn.batch)
        return max(1, min(self.micro_batch or rows, rows))

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """Scale the gradient of these parameters to at most this norm; its norm before."""
        return self.ranks.clip(parameters, limit)

    def parts(self) -> list[Batch]:
        """The micro-batches."""
        size = self.rows_at_once()
        starts = range(0, row_count(self.turn.batch), size)
        return [{name: tensor[start : start + size] for name, tensor in self.turn.batch.items()} for start in starts]

    def micro_batches(self) -> list[tuple[LossFunction, Batch]]:
        """The losses and the micro-batches of this process, the idle ones last."""
        loss = self.turn.loss
        return [(loss, part) for part in self.parts()] + [(partial(counting_nothing, loss), part) for part in self.idle]

    def terms(self, sums: Sums) -> Sums:
        """The terms of the loss: sums over rows, each by its denominator."""
        return {name: total / max(self.counts[name], 1e-12) for name, total in sums.items()}

    def _report(self, totals: Sums, pairs: Pairs) -> Metrics:
        values = {name: float(total) for name, total in totals.items()}
        loss = sum(values.values())
        if not math.isfinite(loss):
            listed = ", ".join(f"{name} {value}" for name, value in values.items())
            raise NotFinite(f"the loss of {self.turn.player!r} became NaN or infinite ({listed})")
        terms = values if len(values) > 1 else {}
        return {"loss": loss, **terms, **ratios(pairs)}


# -- processes --------------------------------------------------------------------------------------------------------


def one_after_another(
    problem: Problem, around: Callable[[bool], contextlib.AbstractContextManager[None]] | None = None
) -> tuple[Sums, Pairs]:
    """The gradient of the micro-batches, one after another. around(last): entered around each backward pass."""
    totals: Sums = {}
    pairs: Pairs = {}
    passes = problem.micro_batches()
    for micro, (loss, batch) in enumerate(passes):
        problem.seed(micro)
        with around(micro == len(passes) - 1) if around else contextlib.nullcontext():
            with problem.scope():
                found = loss(problem.models, batch)
                terms = problem.terms(found.sums)
            backward(terms)
        add(totals, {name: term.detach().float() for name, term in terms.items()})
        add_pairs(pairs, found.metrics)
    return totals, pairs


def counting_nothing(loss: LossFunction, models: Models, batch: Batch) -> Loss:
    """A loss that counts nothing: the same passes, with zero as their result and gradient."""
    found = loss(models, batch)
    metrics = {name: (0 * above.detach(), 0 * below) for name, (above, below) in found.metrics.items()}
    return Loss({name: 0 * total for name, total in found.sums.items()}, metrics)


def backward(terms: Sums) -> None:
    """The backward pass of a sum of terms. Raises SanbuError if they have no gradient."""
    total = sum(terms.values(), torch.zeros(()))
    if not total.requires_grad:
        raise SanbuError(f"optimizer: the objective has no gradient; allowed: {', '.join(WITHOUT_GRADIENT)}")
    total.backward()


def clip_norm(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale a gradient to at most this norm; its norm before."""
    return float(nn.utils.clip_grad_norm_(parameters, limit))


@dataclass(frozen=True)
class Ranks:
    """What the processes of a job do together in a turn, a record of functions. The defaults are those of one process.

    count(turn) -> denominators over all rows. passes(problem) -> sums and metrics of the rows of this process, after
    backward and the exchange of gradients. total(sums, metrics): over all rows. clip(parameters, limit) -> norm.
    freezes: whether parameters of other players may be frozen in a turn; if not, their gradients are dropped after it.
    """

    count: Callable[[Turn], dict[str, float]] = lambda turn: turn.count(turn.batch)
    passes: Callable[[Problem], tuple[Sums, Pairs]] = one_after_another
    total: Callable[[Sums, Pairs], tuple[Sums, Pairs]] = lambda sums, pairs: (sums, pairs)
    clip: Callable[[Sequence[nn.Parameter], float], float] = clip_norm
    freezes: bool = True


ONE = Ranks()


@contextlib.contextmanager
def only_learning(models: Models, learners: Mapping[str, nn.Module], freezes: bool = True) -> Iterator[None]:
    """Enable gradients for the parameters of the learners only, and clear them.

    freezes: False leaves what needs a gradient as it is, and clears the gradients of the others afterwards.
    """
    ours = {id(parameter) for module in learners.values() for parameter in module.parameters()}
    others = []
    for module in models.values():
        for parameter in module.parameters():
            if freezes:
                parameter.requires_grad_(id(parameter) in ours)
            if id(parameter) in ours:
                parameter.grad = None
            else:
                others.append(parameter)
    yield
    if not freezes:
        for parameter in others:
            parameter.grad = None
