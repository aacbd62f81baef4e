"""Tables: rows that look like those of a table, conditions on any cells, and the filling of holes."""

from __future__ import annotations

import json

from sanbu.config import ConfigError, nearest
from sanbu.data.encoded_tables import EncodedTable
from sanbu.data.schema import Wanted
from sanbu.data.tables import Table
from sanbu.models.columns.boosted import ColumnBoosted
from sanbu.models.columns.copula import Copula
from sanbu.models.columns.forest import ColumnForest
from sanbu.models.columns.transformer import ColumnTransformer
from sanbu.models.denoisers.perceptron import PerceptronDenoiser
from sanbu.models.denoisers.trees import TreeDenoiser
from sanbu.objectives.columns import Columns
from sanbu.objectives.denoising import Denoising
from sanbu.optimizers.boosting import Boosting
from sanbu.optimizers.closed_form import ClosedForm
from sanbu.optimizers.gradient import AdamW
from sanbu.optimizers.rate import CosineRate
from sanbu.recipe import Recipe, Schedule
from sanbu.strategies.cells import Cells
from sanbu.strategies.row_refinement import RowRefinement


def table(path: str = "iris", target: str = "auto", types: str = "{}") -> Recipe:
    """Rows of a table by a forest per column; path=FILE, target=COLUMN, types={"age":"category","id":"drop"}."""
    data = Table(path=path, target=target, types=wanted(types))
    schedule = Schedule(steps=1, batch="all", micro_batch=1000, evaluate_every=1, evaluate_rows=10_000)
    return Recipe(
        name="table", data=data, model=ColumnForest(), objective=Columns(), optimizer=ClosedForm(), strategy=Cells(),
        schedule=schedule,
    )  # fmt: skip


def table_flow(path: str = "iris", target: str = "auto", types: str = "{}", model: str = "trees") -> Recipe:
    """Rows of a table by a flow from noise; model=trees (Jolicoeur-Martineau and others, 2024) or perceptron."""
    ways = {"trees": tree_flow, "perceptron": neural_flow}
    if model not in ways:
        raise ConfigError(f"model: given {model!r}, allowed: {', '.join(ways)}{nearest(model, ways)}")
    return ways[model](Table(path=path, target=target, types=wanted(types)))


def tree_flow(data: Table) -> Recipe:
    """The velocity by a ridge regression, and trees on what it leaves; each round has fresh noise."""
    steps = 20
    boosting = Boosting(learning_rate=0.3, depth=6, features=0.3, splits="exact")
    schedule = Schedule(steps=steps, batch=10_000, micro_batch=10_000, evaluate_every=steps, evaluate_rows=10_000)
    return Recipe(
        name="table-flow", data=EncodedTable(rows=data), model=TreeDenoiser(trees=steps), objective=Denoising(),
        optimizer=boosting, strategy=RowRefinement(), schedule=schedule, average=None,
    )  # fmt: skip


def neural_flow(data: Table) -> Recipe:
    """The velocity by a residual perceptron."""
    steps = 1000
    schedule = Schedule(steps=steps, batch=256, evaluate_every=steps // 2, evaluate_rows=10_000)
    adam = AdamW(learning_rate=3e-3, weight_decay=0.1, rate=CosineRate())
    return Recipe(
        name="table-flow", data=EncodedTable(rows=data), model=PerceptronDenoiser(width=128, layers=3, dropout=0.1),
        objective=Denoising(), optimizer=adam, strategy=RowRefinement(), schedule=schedule, average=None,
    )  # fmt: skip


def generators(data: Table) -> dict[str, Recipe]:
    """Every way to generate rows of a table, by name."""
    base = table().change(data=data)
    return {
        "copula": base.change(model=Copula()),
        "column-forest": base,
        "column-boosted": base.change(model=ColumnBoosted()),
        "column-transformer": by_gradient(base),
        "tree-flow": tree_flow(data),
        "neural-flow": neural_flow(data),
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
