"""Tables: rows that look like those of a table, conditions on any cells, and the filling of holes."""

from __future__ import annotations

import json

from sanbu.config import ConfigError
from sanbu.data.schema import Wanted
from sanbu.data.tables import Table
from sanbu.models.columns.boosted import ColumnBoosted
from sanbu.models.columns.copula import Copula
from sanbu.models.columns.forest import ColumnForest
from sanbu.models.columns.transformer import ColumnTransformer
from sanbu.objectives.columns import Columns
from sanbu.optimizers.closed_form import ClosedForm
from sanbu.optimizers.gradient import AdamW
from sanbu.recipe import Recipe, Schedule
from sanbu.strategies.cells import Cells


def table(path: str = "iris", target: str = "auto", types: str = "{}") -> Recipe:
    """Rows of a table by a forest per column; path=FILE, target=COLUMN, types={"age":"category","id":"drop"}."""
    data = Table(path=path, target=target, types=wanted(types))
    schedule = Schedule(steps=1, batch="all", micro_batch=1000, evaluate_every=1, evaluate_rows=10_000)
    return Recipe(
        name="table", data=data, model=ColumnForest(), objective=Columns(), optimizer=ClosedForm(), strategy=Cells(),
        schedule=schedule,
    )  # fmt: skip


def generators(data: Table) -> dict[str, Recipe]:
    """Every way to generate rows of a table, by name."""
    base = table().change(data=data)
    return {
        "copula": base.change(model=Copula()),
        "column-forest": base,
        "column-boosted": base.change(model=ColumnBoosted()),
        "column-transformer": by_gradient(base),
    }


def by_gradient(base: Recipe, steps: int = 100) -> Recipe:
    """A transformer over columns, trained in any order."""
    schedule = Schedule(steps=steps, batch=256, evaluate_every=steps, evaluate_rows=1000, checkpoint_every=0)
    return base.change(
        model=ColumnTransformer(), objective=Columns(order="any"),
        optimizer=AdamW(learning_rate=3e-3, weight_decay=0.1), schedule=schedule,
    )  # fmt: skip


def wanted(types: str) -> dict[str, Wanted]:
    """Types of columns from JSON. Raises ConfigError."""
    try:
        found = json.loads(types)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'types: given {types!r}, allowed: JSON such as {{"age":"category","id":"drop"}}')
    return found
