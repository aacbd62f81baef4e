"""Figures of predictions by hand, and `sanbu evaluate` on runs of classes, numbers and intervals."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sanbu import recipes
from sanbu.config import ConfigError, SanbuError
from sanbu.evaluation.measure import measure
from sanbu.evaluation.predictions import (
    Predicted,
    calibration_error,
    confusion_text,
    importances,
    intervals,
    of_classes,
    of_numbers,
)
from sanbu.loop import train
from sanbu.objectives.supervised import Absolute, CrossEntropy, Gaussian, Quantile, Squared

LAW = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
TARGET = np.array([0, 1, 2, 1])


def test_figures_of_classes_by_hand():
    found = of_classes(TARGET, LAW)
    assert found["accuracy"] == 0.75 and found["always_the_most_frequent"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.5, 0.8]).mean())
    brier = [0.1**2 + 0.1**2, 0.6**2 + 0.6**2, 0.2**2 + 0.3**2 + 0.5**2, 0.1**2 + 0.2**2 + 0.1**2]
    assert found["brier"] == pytest.approx(np.mean(brier))
    assert found["auc"] == 1.0  # in every column the right rows are above the others
    assert found["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.5 + 0.2) / 4)


def test_a_calibrated_predictor_has_no_error_and_a_sure_one_the_rate_of_its_faults():
    law = np.tile([[0.75, 0.25]], (8, 1))
    assert calibration_error(np.array([0, 0, 0, 1] * 2), law) == pytest.approx(0)
    assert calibration_error(np.array([0, 0, 0, 1] * 2), np.tile([[1.0, 0.0]], (8, 1))) == pytest.approx(0.25)


def test_a_class_that_is_not_there_has_no_area():
    assert of_classes(np.array([0, 0]), LAW[:2])["auc"] is None


def predicted(objective, outputs, target):
    return Predicted(torch.zeros(len(target), 1), torch.tensor(outputs), np.array(target), objective, ())


def test_figures_of_numbers_by_hand():
    found = of_numbers(predicted(Squared(), [[1.0], [2.0], [4.0]], [1.0, 3.0, 3.0]))
    assert found == pytest.approx({"mae": 2 / 3, "rmse": (2 / 3) ** 0.5, "r2": 1 - 2 / (8 / 3)})
    outputs = [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 4.0]]
    found = of_numbers(predicted(Quantile(levels=(0.1, 0.5, 0.9)), outputs, [1.0, 2.0, 2.1, -1.0]))
    assert found["coverage"] == 0.5 and found["nominal"] == pytest.approx(0.8) and found["width"] == 2.5
    assert found["mae"] == pytest.approx((0 + 1 + 1.1 + 2) / 4)  # of the median
    low, high, nominal = intervals(predicted(Gaussian(), [[1.0, 0.0]], [1.0]))
    assert (low[0], high[0], nominal) == pytest.approx((1 - 1.64485, 1 + 1.64485, 0.9), abs=1e-4)
    assert intervals(predicted(Absolute(), [[1.0]], [1.0])) is None


def test_what_outputs_mean():
    outputs = torch.tensor([[1.0, 2.0, 3.0]])
    assert list(Quantile(levels=(0.05, 0.5, 0.95)).read(outputs)) == ["50%", "5%", "95%"]
    assert Quantile(levels=(0.05, 0.5, 0.95)).read(outputs)["50%"] == 2
    assert list(Squared().read(outputs)) == ["mean 1", "mean 2", "mean 3"] and list(
        Absolute().read(outputs[:, :1])
    ) == ["median"]
    assert torch.stack(list(CrossEntropy().read(outputs).values())).sum() == pytest.approx(1)
    assert Gaussian().read(outputs[:, :2])["deviation"] == pytest.approx(np.e**2, rel=1e-5)


def test_importance_is_that_of_the_column_that_counts():
    class First(nn.Module):
        def forward(self, x):
            return x[:, :1] + 0.1 * x[:, 2:3]

    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    found = Predicted(x, First()(x), (x[:, 0] + 0.1 * x[:, 2]).numpy(), Squared(), ())
    rises = importances(First(), found, {"a": [0], "b": [1], "c": [2]})
    assert list(rises) == ["a", "c", "b"] and rises["b"] == pytest.approx(0, abs=1e-6)
    assert rises["a"] == pytest.approx(2**0.5, rel=0.1)  # two independent normal numbers
    together = importances(First(), found, {"both": [0, 2]})
    assert together["both"] > rises["a"]


def test_many_classes_are_not_a_matrix():
    matrix = np.eye(30, dtype=int) * 5
    matrix[3, 7] = 4
    text = confusion_text(matrix, [f"c{number}" for number in range(30)])
    assert text.splitlines() == ["most frequent confusions", "4 of c3 taken for c7"]


@pytest.mark.parametrize("model", ["trees", "forest", "mlp", "linear"])
def test_classify(model, tmp_path):
    recipe = recipes.classify(model=model)
    steps = {"trees": 20, "forest": 2}.get(model, 150)
    run = train(recipe.change(steps=steps, evaluate_every=0), tmp_path / "run", watchers=[])
    found, text = measure([run])
    assert found["accuracy"] > 0.9 and found["rows"] == 36 and np.trace(found["confusion"]) == 36 * found["accuracy"]
    assert found["classes"] == ["setosa", "versicolor", "virginica"] and found["importance"]["petal width"] > 0.03
    assert json.loads(json.dumps(found)) == found
    assert max(map(len, text.splitlines())) <= 80 or str(tmp_path) in text
    assert Image.open(tmp_path / "run" / "predictions.png").size[0] > 1000


@pytest.mark.parametrize("model", ["trees", "mlp"])
@pytest.mark.parametrize("levels", ["", "0.1,0.5,0.9"])
def test_regress(model, levels, tmp_path):
    recipe = recipes.regress(model=model, levels=levels)
    changes = ["model.trees=12", "optimizer.learning_rate=0.2"] if model == "trees" else []
    steps = 12 if model == "trees" else 200
    run = train(recipe.change(*changes, steps=steps, evaluate_every=0), tmp_path / "run", watchers=[])
    found, _ = measure([run])
    assert found["r2"] > 0.3 and next(iter(found["importance"])) in ("s5", "bmi")
    assert ("coverage" in found) == bool(levels)
    if levels:
        assert 0.6 < found["coverage"] < 0.95


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def test_a_file_with_missing_cells_names_and_a_number_as_a_class(tmp_path):
    noise = np.random.default_rng(0)
    rows = [["size", "colour", "stars"]]
    for _ in range(200):
        size, colour = noise.normal(), noise.choice(["red", "blue", ""])
        rows.append([f"{size:.3f}" if noise.random() > 0.1 else "", colour, 1 + (size > 0) + 2 * (colour == "red")])
    path = write(tmp_path / "things.csv", rows)
    recipe = recipes.classify(path=path, target="stars")
    assert recipe.data.space().classes == 4
    run = train(recipe.change(steps=20, evaluate_every=0), tmp_path / "run", watchers=[])
    found, _ = measure([run])
    assert found["classes"] == ["1", "2", "3", "4"] and found["accuracy"] > 0.8
    assert set(found["importance"]) == {"size", "colour"}  # not a feature for each name of a colour


def test_refusals_in_one_line(tmp_path):
    path = write(tmp_path / "plain.csv", [["a", "b"], *([n, 2 * n] for n in range(30))])
    with pytest.raises(ConfigError, match="needs target=COLUMN, the column to predict; its columns: a, b"):
        recipes.classify(path=path)
    with pytest.raises(SanbuError, match=r"no column 'c'"):
        recipes.classify(path=path, target="c")
    with pytest.raises(ConfigError, match="'species' is a category of 3; predict it with sanbu train classify"):
        recipes.regress(path="iris", target="species")
    with pytest.raises(ConfigError, match=r"given 'tree', allowed: trees, forest, mlp, linear; did you mean 'trees'"):
        recipes.classify(model="tree")
    for levels in ("0.5,0.1", "a", "0,1"):
        with pytest.raises(ConfigError, match="levels: given"):
            recipes.regress(levels=levels)
    with pytest.raises(ConfigError, match="forest predicts means alone"):
        recipes.regress(model="forest", levels="0.1,0.9")
    with pytest.raises(ConfigError, match="'trees' has no gradient; allowed: boosting, bagging"):
        recipes.classify().change("optimizer=adam")
