"""Exact likelihood: -log p(x) = -sum_i log p(x_i | x_<i), for autoregressive models of pixels.

van den Oord and others, "Pixel recurrent neural networks", 2016.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import Batch, Models


class Likelihood(ObjectiveConfig):
    """The exact negative log-likelihood; bits per dimension as a metric."""

    kind: Literal["likelihood"] = "likelihood"
    families: ClassVar[tuple[str, ...]] = ("pixels",)

    def build(self) -> Objective:
        return likelihood()


def likelihood() -> Objective:
    """Nats per level; bits per dimension and nats per picture as metrics."""
    return Objective(loss, count_levels)


def loss(models: Models, batch: Batch) -> Loss:
    """-log p, summed over all levels."""
    nats = -models["model"](batch["levels"], batch["label"]).sum()
    return Loss({"likelihood": nats}, likelihood_metrics(nats, batch))


def count_levels(batch: Batch) -> dict[str, float]:
    """The number of levels in a batch."""
    return {"likelihood": float(batch["levels"].numel())}


def likelihood_metrics(nats: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Bits per dimension and nats per picture."""
    levels = batch["levels"]
    dimensions, rows = levels.new_tensor(levels.numel()), levels.new_tensor(len(levels))
    return {"bits_per_dimension": (nats.detach() / math.log(2), dimensions), "nats": (nats.detach(), rows)}
