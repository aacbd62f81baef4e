"""Closed form: the best function follows from the rows at once, by counting or by linear algebra.

The model has a method `fit(batch)`, which sets its parameters and buffers. One round on all rows (schedule.steps=1,
schedule.batch=all) is the whole search; further rounds fit the model to their own rows anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from sanbu.config import SanbuError
from sanbu.optimizers.search import Metrics, OptimizerConfig, Problem, Search

ROWS = 64  # whose loss is reported, where the rows of a round are not split


class ClosedForm(OptimizerConfig):
    """Fits a model that can compute its own parameters: n-grams, for example."""

    kind: Literal["closed-form"] = "closed-form"

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return Fitting(models)


class Fitting:
    """Calls `fit` of each model; it has no state of its own."""

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self.models = models
        for name, model in models.items():
            if not hasattr(model, "fit"):
                raise SanbuError(
                    f"optimizer: given 'closed-form', but the {name} has no method fit, which computes its parameters"
                    " from rows; use optimizer=muon or another that follows the gradient"
                )

    @torch.no_grad()
    def step(self, problem: Problem) -> Metrics:
        """Fit to the rows of the round. Reports the loss on the first of them."""
        for model in self.models.values():
            fit: Any = model.fit
            fit(problem.turn.batch)
            model.to(next(iter(problem.turn.batch.values())).device)  # some fit on the CPU
        rows = problem.micro_batch or ROWS
        first = {name: tensor[:rows] for name, tensor in problem.turn.batch.items()}
        part = Problem(problem.models, replace(problem.turn, batch=first), {}, problem.noise, None, problem.scope)
        return {"loss": float(part.value())}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: the weights are all there is."""
