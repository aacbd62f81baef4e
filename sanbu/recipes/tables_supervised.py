"""Prediction of one column of a table from the others: classes or numbers, by trees, a forest, a perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sanbu.codecs.columns import Column
from sanbu.config import ConfigError, nearest
from sanbu.data.tables import Table
from sanbu.models.predictors.mlp import MLP
from sanbu.models.predictors.predictor import PredictorConfig
from sanbu.models.predictors.trees import Trees
from sanbu.objectives.supervised import CrossEntropy, Quantile, Squared, SupervisedConfig
from sanbu.optimizers.bagging import Bagging
from sanbu.optimizers.boosting import Boosting
from sanbu.optimizers.gradient import AdamW
from sanbu.optimizers.rate import CosineRate
from sanbu.optimizers.search import OptimizerConfig
from sanbu.recipe import Recipe, Schedule
from sanbu.strategies.prediction import Prediction


@dataclass(frozen=True)
class Way:
    """A function set with the search that suits it. gaps: how missing features reach it."""

    model: PredictorConfig
    search: OptimizerConfig
    steps: int
    batch: int | Literal["all"] = "all"
    gaps: str = "nan"


def ways(classes: bool) -> Mapping[str, Way]:
    """By the name of the model."""
    gentle = {} if classes else {"learning_rate": 0.04, "depth": 3, "leaf": 10}
    boosting = Boosting(**{"learning_rate": 0.1, "rows": 0.5, "features": 0.5, **gentle})  # type: ignore[arg-type]
    features: float | Literal["sqrt"] = "sqrt" if classes else 0.33
    steps = 150 if classes else 100
    bagging = Bagging(trees=10, features=features, leaf=1 if classes else 3)
    adam = AdamW(learning_rate=3e-3, weight_decay=0.1, rate=CosineRate())
    return {
        "trees": Way(Trees(trees=steps, leaves=16, linear="ridge"), boosting, steps),
        "forest": Way(Trees(trees=100, leaves=4096), bagging, 10),
        "mlp": Way(MLP(layers=2, width=64, dropout=0.1), adam, 1000, 64, "flag"),
        "linear": Way(MLP(layers=0), AdamW(learning_rate=0.03, weight_decay=0.0), 1000, 64, "flag"),
    }


def classify(path: str = "iris", target: str = "auto", model: str = "trees") -> Recipe:
    """Predict a class from the other columns of a table: trees, forest, mlp or linear."""
    way = way_of(model, classes=True)
    data = table(path, target, way)
    if not data.space().classes:
        data = table(path, data.target, way, "category")
    return recipe("classify", data, way, CrossEntropy())


def regress(path: str = "diabetes", target: str = "auto", model: str = "trees", levels: str = "") -> Recipe:
    """Predict a number from the other columns of a table; levels=0.05,0.5,0.95 predicts quantiles."""
    way = way_of(model, classes=False)
    data = table(path, target, way)
    if data.space().classes:
        raise ConfigError(
            f"target: {data.target!r} is a category of {data.space().classes}; predict it with sanbu train classify"
        )
    numbers = quantiles(levels)
    if numbers and model == "forest":
        raise ConfigError("levels: a forest predicts means alone; allowed: model=trees, model=mlp, model=linear")
    objective = Quantile(levels=numbers) if numbers else Squared()
    function = way.model.model_copy(update={"outputs": len(numbers)} if numbers else {})
    if isinstance(function, Trees) and numbers:
        function = function.model_copy(update={"linear": "none"})  # quantiles have no closed form
    if isinstance(function, MLP):
        column = column_of(data)
        function = function.model_copy(update={"center": column.mean, "spread": column.deviation})
    return recipe("regress", data, Way(function, way.search, way.steps, way.batch, way.gaps), objective)


def recipe(name: str, data: Table, way: Way, objective: SupervisedConfig) -> Recipe:
    """The five choices."""
    return Recipe(
        name=name,
        data=data,
        model=way.model,
        objective=objective,
        optimizer=way.search,
        strategy=Prediction(),
        schedule=Schedule(
            steps=way.steps,
            batch=way.batch,
            evaluate_every=way.steps // 5,
            evaluate_rows=1000,
            checkpoint_every=0,
        ),
    )


def way_of(model: str, classes: bool) -> Way:
    """The way of that name. Raises ConfigError with the nearest match."""
    found = ways(classes)
    if model not in found:
        raise ConfigError(f"model: given {model!r}, allowed: {', '.join(found)}{nearest(model, found)}")
    return found[model]


def table(path: str, target: str, way: Way, kind: str = "") -> Table:
    """The table, resolved. Raises ConfigError without a target."""
    types = {target: kind} if kind else {}
    data = Table(path=path, target=target, gaps=way.gaps, types=types).resolve()  # type: ignore[arg-type]
    if not data.target:
        assert data.columns != "auto"
        names = [column.name for column in data.columns]
        raise ConfigError(f"target: {path} needs target=COLUMN, the column to predict; its columns: {', '.join(names)}")
    return data


def column_of(data: Table) -> Column:
    """The target's column."""
    assert data.columns != "auto"
    return next(column for column in data.columns if column.name == data.target)


def quantiles(levels: str) -> tuple[float, ...]:
    """The levels of a text such as 0.05,0.5,0.95. Raises ConfigError unless they rise within 0 and 1."""
    if not levels:
        return ()
    try:
        found = tuple(float(part) for part in levels.split(","))
    except ValueError:
        found = (0.0,)
    if list(found) != sorted(set(found)) or not 0 < found[0] <= found[-1] < 1:
        raise ConfigError(f"levels: given {levels!r}, allowed: numbers between 0 and 1 that rise, as in 0.05,0.5,0.95")
    return found
