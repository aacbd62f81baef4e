"""Bagging: the forest is the mean of trees that scikit-learn fits on the same draws."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sanbu.config import SanbuError
from sanbu.layers.forest import LEAST
from sanbu.models.predictors.trees import Trees
from sanbu.noise import Noise
from sanbu.objectives.supervised import Absolute, CrossEntropy, Gaussian, Squared
from sanbu.optimizers.bagging import Bagging
from sanbu.space import Space
from sanbu.testing import check_search
from tests.optimizers.trees_common import classes, fit, loss, numbers

PLAIN = {"features": 1.0, "leaf": 3}


def draws(step, rows):
    """The counts and the seed that a round of one tree uses."""
    noise = Noise(0, "search", step)
    counts = np.bincount(noise.together().integers(rows, rows).numpy(), minlength=rows)
    return counts, int(noise.together().integers(2**31 - 1, 1))


@pytest.mark.parametrize("leaf", ["all", "one"])
def test_a_forest_of_numbers_is_the_mean_of_trees_on_drawn_rows(leaf):
    batch = numbers(missing=0.1)
    config = Trees(trees=6, leaves=256, outputs=2, leaf=leaf)
    model, _ = fit(config, Bagging(**PLAIN), Squared(), batch, 3, micro=70)
    x, y, expected = batch["x"].numpy(), batch["y"].numpy(), np.zeros((200, 2))
    for step in range(3):
        counts, seed = draws(step, 200)
        kept = counts > 0
        targets = [y] if leaf == "all" else [y[:, :1], y[:, 1:]]
        trees = [
            DecisionTreeRegressor(min_samples_leaf=3, random_state=seed, max_leaf_nodes=256).fit(
                x[kept], target[kept], 2.0 * counts[kept]
            )
            for target in targets
        ]
        expected += np.concatenate([tree.predict(x).reshape(200, -1) for tree in trees], 1) / 3
    assert np.allclose(model(batch["x"]).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("weights", [(), (1.0, 3.0, 0.5)])
def test_a_forest_of_classes_is_the_mean_of_frequencies(weights):
    """Leaves hold weighted frequencies. Gini's criterion is the squared error of one-hot labels: the same splits."""
    batch = classes()
    model, _ = fit(
        Trees(trees=2, leaves=256), Bagging(**PLAIN), CrossEntropy(weights=weights), batch, 2, classes=3, micro=70
    )
    expected = np.zeros((200, 3))
    weight = np.array(weights or (1.0, 1.0, 1.0))[batch["y"].numpy()]
    for step in range(2):
        counts, seed = draws(step, 200)
        kept = counts > 0
        tree = DecisionTreeClassifier(min_samples_leaf=3, random_state=seed, max_leaf_nodes=256)
        tree.fit(batch["x"].numpy()[kept], batch["y"].numpy()[kept], (weight * counts)[kept])
        expected += tree.predict_proba(batch["x"].numpy()) / 2
        leaf = model.forest.leaves(batch["x"])[:, step].numpy()
        for node in np.unique(leaf):
            total = np.bincount(batch["y"][leaf == node], (weight * counts)[leaf == node], minlength=3)
            assert np.allclose(model.forest.values[step, node].numpy(), total / total.sum(), atol=1e-5)
    same = np.isclose(model(batch["x"]).exp().numpy(), np.maximum(expected, LEAST), atol=1e-4).all(1)
    assert same.mean() > 0.9  # other trees only where two splits are equally good


def test_a_forest_is_better_than_its_trees():
    train, test = numbers(rows=300), numbers(rows=301)
    search = Bagging(leaf=1)
    one, many = (fit(Trees(trees=n, leaves=512, outputs=2), search, Squared(), train, n)[0] for n in (1, 40))
    assert loss(many, Squared(), test) < 0.8 * loss(one, Squared(), test)


def test_the_public_check():
    check_search(Bagging(trees=2, features=1.0), model=lambda: Trees(outputs=4).build(Space((8,))), steps=6)


@pytest.mark.parametrize(("objective", "outputs"), [(Absolute(), 1), (Gaussian(), 2)])
def test_objectives_that_it_cannot_fit_are_refused(objective, outputs):
    with pytest.raises(SanbuError, match="squared error and cross-entropy"):
        fit(Trees(outputs=outputs), Bagging(), objective, numbers(outputs=1))
    with pytest.raises(SanbuError, match=r"set model.trees=6"):
        Bagging(trees=3).build({"model": Trees(trees=5).build(Space((4,)))}, 2)


def test_squared_error_of_rows_that_add_up_to_nothing_is_no_law():
    batch = numbers()
    batch["y"] = torch.stack((batch["y"][:, 0], -batch["y"][:, 0]), 1)
    model, _ = fit(Trees(trees=2, leaves=256, outputs=2), Bagging(), Squared(), batch, 2)
    assert (model(batch["x"]).sum(1).abs() < 1e-4).all()
