"""Exact likelihood: -log p(x) = -sum log p(x_i | x_<i), for models that give every level its probability."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import Batch, Models


class Likelihood(ObjectiveConfig):
    """Exact likelihood of every level; bits per dimension."""

    kind: Literal["likelihood"] = "likelihood"
    families: ClassVar[tuple[str, ...]] = ("pixels",)

    def build(self) -> Objective:
        return likelihood()


def likelihood() -> Objective:
    """Nats a level; bits per dimension and nats a picture to read."""
    return Objective(loss, count_levels)


def loss(models: Models, batch: Batch) -> Loss:
    """-log p of all levels."""
    nats = -models["model"](batch["levels"], batch["label"]).sum()
    return Loss({"likelihood": nats}, readings(nats, batch))


def count_levels(batch: Batch) -> dict[str, float]:
    """How many levels a batch has."""
    return {"likelihood": float(batch["levels"].numel())}


def readings(nats: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Bits per dimension and nats a picture."""
    levels = batch["levels"]
    dimensions, rows = levels.new_tensor(levels.numel()), levels.new_tensor(len(levels))
    return {"bits_per_dimension": (nats.detach() / math.log(2), dimensions), "nats": (nats.detach(), rows)}
