"""The contract of step 3: a search looks for the best function, and a problem is what it may ask.

Gradient methods call `problem.backward`; genetic search and boosting call `problem.value` with other functions in the
model's place. A search owns its state; the loop owns the search.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from sanbu.config import Choice, SanbuError
from sanbu.noise import Noise
from sanbu.objectives.objective import Turn, add, add_pairs, ratios, row_count
from sanbu.space import Batch, Models

Metrics = dict[str, float]


class NotFinite(SanbuError):
    """A loss became NaN or infinite."""


class OptimizerConfig(Choice):
    """Step 3: a search for one player's best function."""

    table: ClassVar[str] = "sanbu.optimizers:KINDS"

    def resolve(self, rate: float) -> Self:
        """This config with an `auto` learning rate turned into `rate`."""
        if getattr(self, "learning_rate", None) != "auto":
            return self
        return self.model_copy(update={"learning_rate": rate})

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        """The search over the parameters of these modules, for a run of so many rounds."""
        raise NotImplementedError


class Search(Protocol):
    """One a player. `step` makes one update and reports; the state is tensors and numbers in dictionaries and lists."""

    def step(self, problem: Problem) -> Metrics: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Problem:
    """One turn, as a search sees it: its gradient, or its value for other functions.

    noise: random numbers for the search itself (mutation), keyed by the step.
    scope: entered around each forward pass (precision). seed(micro): called before each micro-batch (dropout).
    round: which round of the run this is, by which rates move; a round may have many turns.
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
        """Add the turn's gradient to the learners' `.grad`, micro-batch by micro-batch, under one denominator."""
        totals: dict[str, Tensor] = {}
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        with only_learning(self.models, self.learners):
            for micro, batch in enumerate(self._split()):
                self.seed(micro)
                with self.scope():
                    loss = self.turn.loss(self.models, batch)
                    terms = {name: total / self._denominator(name) for name, total in loss.sums.items()}
                sum(terms.values(), torch.zeros(())).backward()
                add(totals, {name: term.detach().float() for name, term in terms.items()})
                add_pairs(pairs, loss.metrics)
        return self._report(totals, pairs)

    def value(self, replace: Mapping[str, Callable[..., Any]] | None = None) -> Tensor:
        """The turn's whole loss, a scalar, with other functions in place of named models."""
        models = {**self.models, **(replace or {})}
        total: Tensor | float = 0.0
        for micro, batch in enumerate(self._split()):
            self.seed(micro)
            with self.scope():
                sums = self.turn.loss(models, batch).sums
                total = total + sum(term / self._denominator(name) for name, term in sums.items())
        return torch.as_tensor(total)

    def _denominator(self, name: str) -> float:
        return max(self.counts[name], 1e-12)

    def _split(self) -> Iterator[Batch]:
        rows = row_count(self.turn.batch)
        size = min(self.micro_batch or rows, rows)
        for start in range(0, rows, size):
            yield {name: tensor[start : start + size] for name, tensor in self.turn.batch.items()}

    def _report(self, totals: dict[str, Tensor], pairs: dict[str, tuple[Tensor, Tensor]]) -> Metrics:
        values = {name: float(total) for name, total in totals.items()}
        loss = sum(values.values())
        if not abs(loss) < float("inf"):
            worst = ", ".join(f"{name} {value}" for name, value in values.items())
            raise NotFinite(f"the loss of {self.turn.player!r} is no longer a number ({worst})")
        terms = values if len(values) > 1 else {}
        return {"loss": loss, **terms, **ratios(pairs)}


@contextlib.contextmanager
def only_learning(models: Models, learners: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let gradients reach the parameters of the learners alone, and clear theirs first."""
    ours = {id(parameter) for module in learners.values() for parameter in module.parameters()}
    for module in models.values():
        for parameter in module.parameters():
            parameter.requires_grad_(id(parameter) in ours)
            if id(parameter) in ours:
                parameter.grad = None
    yield
