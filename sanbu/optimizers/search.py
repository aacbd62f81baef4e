"""The contract of step 3: a search looks for the best function of a problem.

Gradient methods call `problem.backward`; genetic search and boosting call `problem.value` with other functions in the
place of the model. A search owns its state; the loop owns the search.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from sanbu.config import Choice, SanbuError
from sanbu.noise import Noise
from sanbu.objectives.objective import Turn, add, add_pairs, ratios
from sanbu.space import Batch, Models, row_count

Metrics = dict[str, float]
WITHOUT_GRADIENT = ("genetic", "evolution", "snes", "cma", "diagonal-cma")  # searches by values alone


class NotFinite(SanbuError):
    """A loss became NaN or infinite."""


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


class Problem:
    """A turn as a search uses it: its gradient, or its value for other functions.

    noise: random numbers for the search itself, such as mutations, keyed by the step.
    scope: entered around each forward pass (precision). seed(micro): called before each micro-batch (dropout).
    round: the number of the round, which sets the learning rate; a round may have many turns.
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
    ) -> None:
        self.models, self.turn, self.learners, self.noise = models, turn, learners, noise
        self.micro_batch, self.scope, self.seed = micro_batch, scope, seed
        self.round = round
        self.counts = turn.count(turn.batch)

    def backward(self) -> Metrics:
        """Add the gradient of the turn to the `.grad` of the learners, over micro-batches with one denominator."""
        totals: dict[str, Tensor] = {}
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        with only_learning(self.models, self.learners):
            for micro, batch in enumerate(self._split()):
                self.seed(micro)
                with self.scope():
                    loss = self.turn.loss(self.models, batch)
                    terms = {name: total / self._denominator(name) for name, total in loss.sums.items()}
                total = sum(terms.values(), torch.zeros(()))
                if not total.requires_grad:
                    allowed = ", ".join(WITHOUT_GRADIENT)
                    raise SanbuError(f"optimizer: the objective has no gradient; allowed: {allowed}")
                total.backward()
                add(totals, {name: term.detach().float() for name, term in terms.items()})
                add_pairs(pairs, loss.metrics)
        return self._report(totals, pairs)

    def value(self, replace: Mapping[str, Callable[..., Any]] | None = None) -> Tensor:
        """The loss of the turn, a scalar, with other functions in place of the named models."""
        models = {**self.models, **(replace or {})}
        total: Tensor | float = 0.0
        for micro, batch in enumerate(self._split()):
            self.seed(micro)
            with self.scope():
                sums = self.turn.loss(models, batch).sums
                total = total + sum(term / self._denominator(name) for name, term in sums.items())
        return torch.as_tensor(total)

    def rows_at_once(self) -> int:
        """The number of rows in a forward pass."""
        rows = row_count(self.turn.batch)
        return min(self.micro_batch or rows, rows)

    def _denominator(self, name: str) -> float:
        return max(self.counts[name], 1e-12)

    def _split(self) -> Iterator[Batch]:
        size = self.rows_at_once()
        for start in range(0, row_count(self.turn.batch), size):
            yield {name: tensor[start : start + size] for name, tensor in self.turn.batch.items()}

    def _report(self, totals: dict[str, Tensor], pairs: dict[str, tuple[Tensor, Tensor]]) -> Metrics:
        values = {name: float(total) for name, total in totals.items()}
        loss = sum(values.values())
        if not math.isfinite(loss):
            listed = ", ".join(f"{name} {value}" for name, value in values.items())
            raise NotFinite(f"the loss of {self.turn.player!r} became NaN or infinite ({listed})")
        terms = values if len(values) > 1 else {}
        return {"loss": loss, **terms, **ratios(pairs)}


@contextlib.contextmanager
def only_learning(models: Models, learners: Mapping[str, nn.Module]) -> Iterator[None]:
    """Enable gradients for the parameters of the learners only, and clear them."""
    ours = {id(parameter) for module in learners.values() for parameter in module.parameters()}
    for module in models.values():
        for parameter in module.parameters():
            parameter.requires_grad_(id(parameter) in ours)
            if id(parameter) in ours:
                parameter.grad = None
    yield
