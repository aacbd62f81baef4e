"""The likelihood of rows of a table, in nats per row.

columns         -sum_c log p(x_c | x_<c), for a model with an order of the columns
masked-columns  -(C / m) sum_{c hidden} log p(x_c | known), for a model of any order: m of the C columns are hidden, m
                uniform in 1..C. Its mean is that over all orders of -log p(row)         (Uria and others, 2014)

C columns, B rows.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round, count_rows
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


class MaskedColumns(ObjectiveConfig):
    """-log p of a random subset of the columns given the rest."""

    kind: Literal["masked-columns"] = "masked-columns"
    families: ClassVar[tuple[str, ...]] = ("masked-columns",)

    def build(self) -> Objective:
        return Objective(masked_columns, count_rows, experience=hide)


def hide(round: Round) -> Batch:
    """The batch with known_BC: a number of hidden columns, uniform in 1..C, and which they are."""
    rows, columns = round.batch["cells"].shape
    place_BC = round.noise.uniform(rows, columns).argsort(1).argsort(1)
    hidden_B = 1 + round.noise.integers(columns, rows)
    return round.batch | {"known": place_BC >= hidden_B[:, None]}


def masked_columns(models: Models, batch: Batch) -> Loss:
    """The sum over rows and hidden columns, weighted by C over their number."""
    hidden_BC = ~batch["known"]
    log_prob_BC = models["model"](batch["cells"], batch["known"]).masked_fill(~hidden_BC, 0.0)
    weight_B = hidden_BC.shape[1] / hidden_BC.sum(1)
    return Loss({"rows": -(weight_B[:, None] * log_prob_BC).sum()})
