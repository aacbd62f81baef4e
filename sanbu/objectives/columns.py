"""The likelihood of rows of a table, in nats per row: -sum_c log p(x_c | x_<c). C columns, B rows."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, count_rows
from sanbu.space import Batch, Models


class Columns(ObjectiveConfig):
    """-log p of each column given those before it."""

    kind: Literal["columns"] = "columns"
    families: ClassVar[tuple[str, ...]] = ("columns",)

    def build(self) -> Objective:
        return Objective(columns, count_rows)


def columns(models: Models, batch: Batch) -> Loss:
    """The sum over rows and columns."""
    cells_BC = batch["cells"]
    log_prob_BC = models["model"](cells_BC, torch.zeros_like(cells_BC, dtype=torch.bool))
    return Loss({"rows": -log_prob_BC.sum()})
