"""Trees beside scikit-learn's and XGBoost: python -m bench.trees [--part quality|speed|flow] [--json]

quality  macro F1 and log loss on iris, wine, breast cancer and digits, R^2 on diabetes: means of stratified splits of
         80/20 with seeds 0, 1, 2, with CPU seconds to fit. Ours are the recipes' models and searches; the peers have
         their defaults.
speed    CPU seconds to fit and to predict 20,000 rows of 20 numbers, 100 trees of depth 6, one output
flow     the velocity of a flow on breast cancer at given times, as docs/trees.md says
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SETS = ("iris", "wine", "breast_cancer", "digits", "diabetes")
SEEDS = (0, 1, 2)
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]  # x, y -> a function of x


def ours(kind: str, classes: int, seed: int) -> Fit:
    """The model and the search of a recipe, on these arrays."""
    from sanbu.objectives.supervised import CrossEntropy, Squared
    from sanbu.recipes.tables_supervised import ways

    way = ways(bool(classes))[kind]
    objective = CrossEntropy() if classes else Squared()
    return fitted(way.model, way.search, objective, way.steps, classes, seed)


def fitted(model: Any, search: Any, objective: Any, steps: int, classes: int = 0, seed: int = 0) -> Fit:
    """Rounds of a search on all rows, as the loop makes them."""
    import torch

    from sanbu.noise import Noise
    from sanbu.objectives.objective import Turn
    from sanbu.optimizers.search import Problem
    from sanbu.space import Space

    def fit(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        function = model.build(Space((x.shape[1],), classes=classes))
        found, goal = search.build({"model": function}, steps), objective.build()
        target = torch.from_numpy(y) if classes else torch.from_numpy(y.astype(np.float32))
        batch = {"x": torch.from_numpy(x.astype(np.float32)), "y": target}
        turn = Turn("model", batch, goal.loss, goal.count)
        for step in range(steps):
            found.step(Problem({"model": function}, turn, {"model": function}, Noise(seed, "search", step)))
        function.forest.memory = None

        def predict(x: np.ndarray) -> np.ndarray:
            outputs = function(torch.from_numpy(x.astype(np.float32)))
            return (outputs.softmax(1) if classes else outputs).numpy()

        return predict

    return fit


def peer(make: Callable[..., Any], classes: int, seed: int, **fields: Any) -> Fit:
    """A model with fit and predict."""

    def fit(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        model = make(random_state=seed, **fields).fit(x, y)
        return (lambda x: model.predict_proba(x)) if classes else (lambda x: model.predict(x)[:, None])

    return fit


def methods(classes: int, seed: int) -> dict[str, Fit]:
    """Everything that is compared."""
    from sklearn import ensemble

    kind = "Classifier" if classes else "Regressor"
    found = {
        "sanbu.trees": ours("trees", classes, seed),
        "sanbu.forest": ours("forest", classes, seed),
        "sklearn.hist": peer(getattr(ensemble, f"HistGradientBoosting{kind}"), classes, seed),
        "sklearn.forest": peer(getattr(ensemble, f"RandomForest{kind}"), classes, seed),
    }
    try:
        import xgboost

        found["xgboost"] = peer(getattr(xgboost, f"XGB{kind}"), classes, seed, n_jobs=1)
    except ImportError:
        pass
    return found


def split(name: str, seed: int) -> tuple[Arrays, int]:
    """Standardised features of a set of scikit-learn, and the number of its classes."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    classes = 0 if name == "diabetes" else int(y.max()) + 1
    parts = train_test_split(x, y, test_size=0.2, stratify=y if classes else None, random_state=seed)
    mean, deviation = parts[0].mean(0), np.maximum(parts[0].std(0), 1e-9)
    return ((parts[0] - mean) / deviation, (parts[1] - mean) / deviation, parts[2], parts[3]), classes


def scores(predicted: np.ndarray, y: np.ndarray, classes: int) -> dict[str, float]:
    """Figures of one split."""
    from sklearn import metrics

    if not classes:
        return {"r2": float(metrics.r2_score(y, predicted[:, 0]))}
    f1 = float(metrics.f1_score(y, predicted.argmax(1), average="macro"))
    return {"f1": f1, "log_loss": float(metrics.log_loss(y, predicted))}


def quality() -> dict[str, float]:
    """Means over the seeds."""
    found: dict[str, list[float]] = {}
    for name in SETS:
        for seed in SEEDS:
            (x, x_test, y, y_test), classes = split(name, seed)
            for method, fit in methods(classes, seed).items():
                begun = time.process_time()
                predict = fit(x, y)
                figures = {"fit_s": time.process_time() - begun, **scores(predict(x_test), y_test, classes)}
                for figure, value in figures.items():
                    found.setdefault(f"trees.{name}.{method}.{figure}", []).append(value)
    return {key: round(float(np.mean(values)), 4) for key, values in found.items()}


def speed() -> dict[str, float]:
    """Fit and predict, the least of three for prediction."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

    from sanbu.models.predictors.trees import Trees
    from sanbu.objectives.supervised import Squared
    from sanbu.optimizers.bagging import Bagging
    from sanbu.optimizers.boosting import Boosting

    noise = np.random.default_rng(0)
    x = noise.normal(size=(20_000, 20))
    y = np.sin(x[:, 0]) * x[:, 1] + x[:, 2] + 0.1 * noise.normal(size=len(x))
    trees = {"trees": 100, "leaves": 64}
    fits: dict[str, Fit] = {
        "sanbu.boosting": fitted(Trees(**trees), Boosting(depth=6, leaf=20), Squared(), 100),
        "sklearn.hist": peer(
            HistGradientBoostingRegressor, 0, 0, max_iter=100, max_depth=6, max_leaf_nodes=64, early_stopping=False
        ),
        "sanbu.bagging": fitted(Trees(**trees), Bagging(depth=6, features=0.33), Squared(), 100),
        "sklearn.forest": peer(RandomForestRegressor, 0, 0, max_depth=6, max_features=0.33),
    }
    try:
        from xgboost import XGBRegressor

        fits["xgboost"] = peer(XGBRegressor, 0, 0, n_estimators=100, max_depth=6, learning_rate=0.1, n_jobs=1)
    except ImportError:
        pass
    found: dict[str, float] = {}
    for name, fit in fits.items():
        begun = time.process_time()
        predict = fit(x, y)
        found[f"trees.speed.{name}.fit_s"] = time.process_time() - begun
        spent = []
        for _ in range(3):
            begun = time.process_time()
            predict(x)
            spent.append(time.process_time() - begun)
        found[f"trees.speed.{name}.predict_s"] = min(spent)
        found[f"trees.speed.{name}.error"] = float(np.square(predict(x)[:, 0] - y).mean())
    return {key: round(value, 4) for key, value in found.items()}


def flow() -> dict[str, float]:
    """The error of the velocity x - e at x_t = (1 - t) e + t x, on rows held out, 10 noises a row; three splits."""
    from sklearn.datasets import load_breast_cancer

    from sanbu.models.predictors.trees import Trees
    from sanbu.objectives.supervised import Squared
    from sanbu.optimizers.boosting import Boosting

    data = load_breast_cancer().data
    data = 2 * (data - data.min(0)) / (data.max(0) - data.min(0)) - 1
    gentle = Boosting(depth=3, leaf=20, learning_rate=0.1, rows=0.5, features=0.3)
    ways: dict[str, tuple[Any, Any, int]] = {
        "ridge": (Trees(outputs=30, trees=1, leaves=2, linear="ridge"), Boosting(depth=1, leaf=10**6), 1),
        "ridge, vector leaves": (Trees(outputs=30, trees=30, linear="ridge"), gentle, 30),
        "ridge, a tree a column": (Trees(outputs=30, trees=600, linear="ridge", leaf="one"), gentle, 20),
        "vector leaves": (Trees(outputs=30, trees=30), Boosting(depth=6, leaf=20), 30),
    }
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        noise = np.random.default_rng(seed)
        order = noise.permutation(len(data))
        for t in (0.2, 0.5, 0.8):
            (x, y), (x_test, y_test) = (velocities(data[part], t, noise) for part in (order[:285], order[285:]))
            for name, (model, search, steps) in ways.items():
                begun = time.process_time()
                predict = fitted(model, search, Squared(), steps, 0, seed)(x, y)
                spent = time.process_time() - begun
                error = float(np.square(predict(x_test) - y_test).mean())
                found.setdefault(f"trees.flow.{t}.{name}", []).append(error)
                found.setdefault(f"trees.flow.{t}.{name}.fit_s", []).append(spent)
    return {key: round(float(np.mean(values)), 4) for key, values in found.items()}


def velocities(rows: np.ndarray, t: float, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x_t and its velocity, ten times per row."""
    x = np.repeat(rows, 10, 0)
    e = noise.standard_normal(x.shape)
    return (1 - t) * e + t * x, x - e


PARTS = {"quality": quality, "speed": speed, "flow": flow}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(PARTS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in [given.part] if given.part else PARTS:
        figures |= PARTS[name]()
    if given.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:60}{value:12.4f}")


if __name__ == "__main__":
    main()
