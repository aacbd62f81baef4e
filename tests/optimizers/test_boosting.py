"""Boosting: exact where a formula or an enumeration is at hand."""

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sanbu
from sanbu.config import SanbuError
from sanbu.files import load_weights, read_tensors, weights, write_tensors
from sanbu.layers.forest import Forest
from sanbu.loop import train
from sanbu.models.denoisers.trees import TreeDenoiser, hats
from sanbu.models.predictors.mlp import MLP
from sanbu.models.predictors.trees import Trees
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, count_rows
from sanbu.objectives.supervised import Absolute, CrossEntropy, Gaussian, Quantile, Squared
from sanbu.optimizers.boosting import Boosting
from sanbu.optimizers.outputs import curvature_at, gradient_at
from sanbu.recipe import Recipe, Schedule
from sanbu.space import Space
from sanbu.strategies.prediction import Prediction
from sanbu.testing import check_model, check_search
from tests.optimizers.trees_common import classes, fit, loss, numbers, problem
from tests.tenants.common import CPU

DEEP = {"depth": 60, "leaf": 1, "penalty": 0.0, "learning_rate": 1.0}


@pytest.mark.parametrize("leaf", ["all", "one"])
def test_one_round_without_limits_learns_distinct_rows(leaf):
    batch = numbers(missing=0.1)
    model, _ = fit(Trees(trees=2, leaves=200, outputs=2, leaf=leaf), Boosting(**DEEP), Squared(), batch)
    assert loss(model, Squared(), batch) < 1e-10


@pytest.mark.parametrize("micro", [None, 7])
def test_a_stump_is_the_best_of_all_cuts(micro):
    """Every cut of every feature, with means on both sides, is tried by hand."""
    batch = numbers(rows=40, outputs=1)
    search = Boosting(depth=1, leaf=3, penalty=0.0, learning_rate=1.0)
    model, _ = fit(Trees(trees=1, leaves=2), search, Squared(), batch, micro=micro)
    x, y = batch["x"].numpy().astype(np.float64), batch["y"][:, 0].numpy().astype(np.float64)
    best = (np.inf, np.zeros(0))
    for feature in range(x.shape[1]):
        order = np.argsort(x[:, feature])
        for cut in range(3, len(x) - 2):
            low, high = order[:cut], order[cut:]
            predicted = np.empty(len(x))
            predicted[low], predicted[high] = y[low].mean(), y[high].mean()
            best = min(best, (((y - predicted) ** 2).mean(), predicted), key=lambda pair: pair[0])
    assert loss(model, Squared(), batch) == pytest.approx(best[0], rel=1e-5)
    assert np.allclose(model(batch["x"])[:, 0].numpy(), best[1], atol=1e-5)


@pytest.mark.parametrize("leaf", ["all", "one"])
@pytest.mark.parametrize("objective", [Squared(), CrossEntropy(), CrossEntropy(weights=(1.0, 2.0, 0.5))])
def test_leaves_are_steps_of_newton(objective, leaf):
    """-sum g / (sum h + penalty) over the rows of a leaf, with g and h from autograd on the row's own loss."""
    squared = isinstance(objective, Squared)
    batch = numbers(outputs=3) if squared else classes()
    search = Boosting(depth=2, leaf=10, penalty=2.0, learning_rate=0.5)
    config = Trees(trees=6, leaves=4, outputs=3, leaf=leaf)
    model, _ = fit(config, search, objective, batch, steps=2)
    forest = model.forest
    before, after = 3 if leaf == "one" else 1, forest.grown
    weight = torch.tensor(getattr(objective, "weights", ()) or (1.0, 1.0, 1.0), dtype=torch.float64)
    scale = 1.0 if squared else 200 / float(weight[batch["y"]].sum())  # the mean is over the sum of the weights
    forest.state[0] = before
    outputs = model(batch["x"]).double()
    forest.state[0] = after

    def row_loss(f, y):
        if squared:
            return (f - y).square().sum()
        return scale * F.cross_entropy(f[None], y[None], weight, reduction="sum")

    gradient = torch.stack([torch.func.grad(row_loss)(f, y) for f, y in zip(outputs, batch["y"], strict=True)])
    curvature = torch.stack(
        [torch.func.hessian(row_loss)(f, y).diag() for f, y in zip(outputs, batch["y"], strict=True)]
    )
    leaf_BT = forest.leaves(batch["x"])[:, before:]
    for tree in range(after - before):
        columns = [tree] if leaf == "one" else [0, 1, 2]
        for node in leaf_BT[:, tree].unique():
            rows = leaf_BT[:, tree] == node
            step = -gradient[rows].sum(0) / (curvature[rows].sum(0) + 2.0)
            found = forest.values[before + tree, node].double()
            assert torch.allclose(found, 0.5 * step[columns], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("micro", [None, 70])
@pytest.mark.parametrize("objective", [Absolute(), Quantile(levels=(0.1, 0.9))])
def test_leaves_without_curvature_are_quantiles(objective, micro):
    batch = numbers(outputs=1)
    levels = np.array(getattr(objective, "levels", (0.5,)))
    config = Trees(trees=1, leaves=4, outputs=len(levels))
    model, _ = fit(config, Boosting(depth=2, leaf=20, learning_rate=1.0), objective, batch, micro=micro)
    leaf = model.forest.leaves(batch["x"])[:, 0]
    for node in leaf.unique():
        y, found = batch["y"][leaf == node, 0].numpy(), model(batch["x"])[leaf == node][0].numpy()
        for level, value in zip(levels, found, strict=True):
            below, up_to = (y < value - 1e-4).mean(), (y <= value + 1e-4).mean()
            assert below <= level <= up_to, (level, below, up_to)


def test_the_constant_is_what_the_objective_wants():
    batch = numbers(outputs=1)
    y = batch["y"][:, 0]
    only = {"search": Boosting(depth=1, leaf=10**6, learning_rate=1e-6), "batch": batch}
    base = lambda objective, outputs: (
        fit(Trees(trees=1, leaves=2, outputs=outputs), only["search"], objective, batch)[0].forest.base
    )
    assert base(Squared(), 1)[0] == pytest.approx(float(y.mean()), abs=1e-5)
    assert base(Absolute(), 1)[0] == pytest.approx(float(y.quantile(0.5)), abs=0.02)
    assert base(Gaussian(), 2).tolist() == pytest.approx([float(y.mean()), float(y.std(correction=0).log())], abs=1e-4)
    labels = classes()
    found, _ = fit(Trees(trees=1, leaves=2), only["search"], CrossEntropy(), labels, classes=3)
    share = torch.bincount(labels["y"]).float() / 200
    assert torch.allclose(found.forest.base.softmax(0), share, atol=1e-4)


@pytest.mark.parametrize("rate", [0.3, 1.0])
@pytest.mark.parametrize("leaf", ["all", "one"])
def test_squared_error_never_rises(rate, leaf):
    search = Boosting(learning_rate=rate, depth=3)
    _, losses = fit(
        Trees(trees=60, leaves=8, outputs=2, leaf=leaf, linear="ridge"), search, Squared(), numbers(missing=0.1), 30
    )
    assert all(after <= before + 1e-6 for before, after in pairwise(losses))
    assert losses[-1] < 0.5 * losses[0]


def test_micro_batches_change_nothing_but_rounding():
    batch = classes()
    models = [
        fit(Trees(trees=5), Boosting(rows=0.7), CrossEntropy(), batch, 5, classes=3, micro=m)[0] for m in (None, 33)
    ]
    assert torch.allclose(models[0](batch["x"]), models[1](batch["x"]), atol=1e-4)


def test_the_order_of_rows_changes_nothing_but_rounding():
    batch, order = numbers(), torch.randperm(200, generator=torch.Generator().manual_seed(0))
    moved = {name: tensor[order] for name, tensor in batch.items()}
    one, other = (fit(Trees(trees=5, outputs=2), Boosting(), Squared(), b, 5)[0] for b in (batch, moved))
    assert torch.allclose(one(batch["x"]), other(batch["x"]), atol=1e-4)
    assert one.forest.feature.equal(other.forest.feature) and one.forest.child.equal(other.forest.child)


def test_an_increasing_map_of_a_feature_changes_no_training_row():
    batch = numbers()
    mapped = {**batch, "x": torch.cat((batch["x"][:, :1].exp(), batch["x"][:, 1:] ** 3), 1)}
    one, other = (fit(Trees(trees=5, outputs=2), Boosting(), Squared(), b, 5)[0] for b in (batch, mapped))
    assert one(batch["x"]).equal(other(mapped["x"]))


def test_ridge_is_the_closed_form():
    batch = numbers(outputs=2)
    model, _ = fit(
        Trees(trees=1, leaves=2, outputs=2, linear="ridge"),
        Boosting(depth=1, leaf=10**6, ridge=3.0),
        Squared(),
        batch,
    )
    x, y = batch["x"].double(), batch["y"].double()
    z = (x - x.mean(0)) / x.std(0, correction=0)
    # the loss is a mean of squares, whose curvature is 2 per row
    weights = torch.linalg.solve(2 * z.T @ z + 3.0 * torch.eye(4), 2 * z.T @ (y - y.mean(0)))
    assert torch.allclose(model(batch["x"]).double(), z @ weights + y.mean(0), atol=1e-4)


def test_lower_precision_changes_no_output():
    batch = numbers(missing=0.1)
    model, _ = fit(Trees(trees=3, outputs=2, linear="ridge"), Boosting(), Squared(), batch, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(batch["x"]).equal(model(batch["x"])) and model(batch["x"]).dtype == torch.float32
        low = model(batch["x"])
    assert low.equal(model(batch["x"]))


def test_ridge_of_classes_lowers_the_loss_and_refuses_what_has_no_curvature():
    batch = classes()
    flat = Boosting(depth=1, leaf=10**6)
    _, plain = fit(Trees(trees=2, leaves=2), flat, CrossEntropy(), batch, 2, classes=3)
    _, linear = fit(Trees(trees=2, leaves=2, linear="ridge"), flat, CrossEntropy(), batch, 2, classes=3)
    assert linear[0] < 0.6 * plain[0]
    with pytest.raises(SanbuError, match="curvature"):
        fit(Trees(linear="ridge"), Boosting(), Absolute(), numbers(outputs=1))


class Twice(ObjectiveConfig):
    """Calls the model twice, for x and for -x, and asks for f(x) - f(-x) = y."""

    kind: Literal["test-twice"] = "test-twice"

    def build(self):
        def loss(models, batch):
            difference = models["model"](batch["x"]) - models["model"](-batch["x"])
            return Loss({"rows": (difference - batch["y"]).square().sum()})

        return Objective(loss, count_rows)


def test_several_calls_of_the_model():
    batch = numbers(outputs=1)
    model, losses = fit(Trees(trees=60), Boosting(leaf=2), Twice(), batch, 60, micro=50)
    assert losses[-1] < 0.1 * losses[0]
    look, _ = gradient_at(problem(model, Twice(), batch), model.forest)
    assert look.x.equal(torch.cat((batch["x"], -batch["x"]))) and torch.allclose(
        look.gradient[:200], -look.gradient[200:]
    )


def test_a_search_is_invisible_afterwards():
    """No hook stays behind, and the memory gives what the forest gives."""
    batch = numbers()
    model, _ = fit(Trees(trees=8, outputs=2), Boosting(trees=2), Squared(), batch, 4)
    assert not model.forest._forward_hooks and model.forest.grown == 8
    known = model(batch["x"])
    model.forest.memory = None
    assert model(batch["x"]).equal(known)


class Coupled(ObjectiveConfig):
    """f_1^2 + 3 f_1 f_2 + 4 f_2^2: the outputs are coupled, and the curvature is 2 and 8."""

    kind: Literal["test-coupled"] = "test-coupled"

    def build(self):
        def loss(models, batch):
            one, two = models["model"](batch["x"]).unbind(1)
            return Loss({"rows": (one**2 + 3 * one * two + 4 * two**2 + batch["y"][:, 0] * one).sum()})

        return Objective(loss, count_rows)


def test_curvature_of_coupled_outputs():
    model, batch = Trees(outputs=2).build(Space((4,))), numbers()
    found = curvature_at(problem(model, Coupled(), batch, micro=30), model.forest)
    assert torch.allclose(found, torch.tensor([2.0, 8.0]).expand(200, 2), rtol=1e-4)


@pytest.mark.parametrize("leaf", ["all", "one"])
def test_the_public_checks(leaf):
    make = lambda: Trees(outputs=4, trees=200, leaf=leaf, linear="ridge").build(Space((8,)))
    check_search(Boosting(rows=0.8, features=0.5), model=make, steps=10)

    def grow(model):
        batch = numbers(features=8, outputs=4)
        search = Boosting().build({"model": model}, 3)
        for step in range(3):
            search.step(problem(model, Squared(), batch, step))

    check_model(Trees(outputs=4, leaf=leaf), Space((8,)), (numbers(features=8)["x"],), grow)
    with pytest.raises(AssertionError, match="fitting changes no output"):
        check_model(Trees(outputs=4), Space((8,)), (numbers(features=8)["x"],), lambda model: None)


def test_refusals_in_one_line():
    space = Space((4,))
    with pytest.raises(SanbuError, match="boosting grows a forest, but the models to train are: model Sequential"):
        Boosting().build({"model": MLP().build(space)}, 10)
    with pytest.raises(SanbuError, match="boosting grows a forest"):
        Boosting().build({"model": nn.ModuleList([Forest(1, 5, 4), nn.Linear(2, 2)])}, 5)
    with pytest.raises(SanbuError, match="given 10, but 4 steps of 2 outputs grow 16 trees; set model.trees=16"):
        Boosting(trees=2).build({"model": Trees(trees=10, outputs=2, leaf="one").build(space)}, 4)


def test_a_weights_file(tmp_path):
    batch = numbers(missing=0.1)
    config = Trees(trees=5, outputs=2, linear="ridge")
    model, _ = fit(config, Boosting(), Squared(), batch, 5)
    write_tensors(tmp_path / "model.safetensors", weights(model))
    other = config.build(Space((4,)))
    load_weights(other, read_tensors(tmp_path / "model.safetensors"), tmp_path)
    assert other(batch["x"]).equal(model(batch["x"]))


def recipe(batch, steps=8, **fields):
    """Boosting on small batches, so that rows come again after some rounds."""
    return Recipe(
        name="boosted", data=sanbu.data.rows(**batch), model=Trees(trees=8, outputs=2, linear="ridge"),
        objective=Squared(), optimizer=Boosting(rows=0.8), strategy=Prediction(), machine=CPU,
        schedule=Schedule(steps=steps, batch=100, micro_batch=30, evaluate_every=2, **fields),
    )  # fmt: skip


def test_resume_is_bitwise(tmp_path, monkeypatch):
    from sanbu.training import Training

    batch = numbers(missing=0.05)
    whole = train(recipe(batch), tmp_path / "whole", watchers=[])
    advance, count = Training.advance, [0]

    def fails(self):
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(Training, "advance", fails)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(batch, checkpoint_every=4), tmp_path / "part", watchers=[])
    monkeypatch.setattr(Training, "advance", advance)
    part = train(recipe(batch, checkpoint_every=4), tmp_path / "part", resume=True, watchers=[])
    ours, theirs = weights(whole.model), weights(part.model)
    assert all(ours[name].equal(theirs[name]) for name in ours)
    rows = [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in r.metrics()] for r in (whole, part)]
    assert rows[0] == rows[1] and whole.model.forest.grown == 8


# -- a forest flow ----------------------------------------------------------------------------------------------------


def test_hats_sum_to_one():
    clock = torch.tensor([[-5.0], [0.0], [500.0], [321.0], [1000.0], [2000.0]])
    found = hats(clock, 5)
    assert torch.allclose(found.sum(1), torch.ones(6)) and found[2].tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("linear", ["none", "shared", "by-label"])
def test_the_denoiser_is_checked(linear):
    config, space = TreeDenoiser(linear=linear, knots=3), Space((2, 3), classes=2)
    inputs = (torch.randn(5, 2, 3), torch.rand(5), torch.tensor([0, 1, 2, 0, 1]))

    def grow(model):
        search = Boosting(leaf=1).build({"model": model}, 2)
        for step in range(2):
            search.step(denoising(model, step))

    check_model(config, space, inputs, grow)


def denoising(model, step=0, rows=400, micro=150):
    """The turn of flow matching on normal data: x ~ N(m, C) with a mean for each label."""
    from sanbu.noise import Noise
    from sanbu.objectives.denoising import Denoising
    from sanbu.objectives.objective import Round, Turn
    from sanbu.optimizers.search import Problem

    noise = Noise("normal", step)
    label = noise.integers(2, rows)
    x = 0.5 * noise.normal(rows, 2, 3) + label[:, None, None] - 0.5
    objective = Denoising().build()
    batch = objective.experience(Round({"model": model}, {"image": x, "label": label}, Noise("round", step)))
    turn = Turn("model", batch, objective.loss, objective.count)
    return Problem({"model": model}, turn, {"model": model}, Noise("search", step), micro)


def test_a_flow_of_normal_data_is_linear():
    """The best velocity is linear in x_t with known coefficients, a function of t; hats of t follow it closely."""
    model = TreeDenoiser(knots=8).build(Space((2, 3), classes=2))
    search = Boosting(depth=1, leaf=10**6).build({"model": model}, 1)
    search.step(denoising(model, rows=15_000, micro=None))
    torch.manual_seed(0)
    clean, noise, label = 0.5 * torch.randn(500, 2, 3), torch.randn(500, 2, 3), torch.arange(500) % 2
    for t in (0.1, 0.5, 0.9):
        mean, variance = label[:, None, None] - 0.5, 0.25
        x = (1 - t) * (clean + mean) + t * noise
        total = (1 - t) ** 2 * variance + t**2
        centred = x - (1 - t) * mean
        best = t / total * centred - (mean + (1 - t) * variance / total * centred)
        found = model(x, torch.full((500,), t), label)
        assert (found - best).square().mean() < 0.03, t
