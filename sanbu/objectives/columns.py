"""The likelihood of rows of a table, in nats per row: -sum_c log p(x_c | x_<c). C columns, B rows.

In any order: k of the C cells are given, k uniform in 0 .. C - 1 and the cells at random, and the loss is C / (C - k)
times the sum of -log p of the others given these. Its mean is that of -log p(row) over all orders (Uria and others,
2014). Held-out rows are judged by the exact chain rule in the order of the model.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from sanbu.config import SanbuError
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round, count_rows
from sanbu.space import Batch, Models


class Columns(ObjectiveConfig):
    """-log p of each column given those before it, or given any others."""

    kind: Literal["columns"] = "columns"
    families: ClassVar[tuple[str, ...]] = ("columns",)
    order: Literal["model", "any"] = Field("model", description="which columns are given: those before, or any")

    def build(self) -> Objective:
        experience = any_order if self.order == "any" else in_order
        return Objective(columns, count_rows, experience=experience)


def in_order(round: Round) -> Batch:
    """The rows. A model that needs margins takes them from the first of them."""
    model = round.models["model"]
    if round.learning and hasattr(model, "prepare"):
        model.prepare(round.batch["cells"])
    return round.batch


def any_order(round: Round) -> Batch:
    """The rows, with a random choice of given cells. Raises SanbuError for a model with one order."""
    if not getattr(round.models["model"], "any_order", False):
        raise SanbuError("objective.order: given 'any', allowed for this model: model; or set model=column-transformer")
    batch = in_order(round)
    if not round.learning:
        return batch
    rows, width = batch["cells"].shape
    count_B1 = (round.noise.uniform(rows, 1) * width).long().clamp(max=width - 1)
    rank_BC = round.noise.uniform(rows, width).argsort(1).argsort(1)
    return batch | {"known": rank_BC < count_B1}


def columns(models: Models, batch: Batch) -> Loss:
    """The sum over rows and columns."""
    cells_BC = batch["cells"]
    if "known" not in batch:
        nothing_BC = torch.zeros_like(cells_BC, dtype=torch.bool)
        return Loss({"rows": -models["model"](cells_BC, nothing_BC).sum()})
    known_BC = batch["known"]
    log_prob_BC = models["model"](cells_BC, known_BC, True)
    factor_B = known_BC.shape[1] / (~known_BC).sum(1)
    return Loss({"rows": -(factor_B * log_prob_BC.sum(1)).sum()})
