"""Trees from histograms are those that try every cut, where there are few values, and near them otherwise."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor

from sanbu.layers.growing import Limits
from sanbu.models.predictors.trees import Trees
from sanbu.noise import Noise
from sanbu.objectives.supervised import CrossEntropy, Squared
from sanbu.optimizers import histogram
from sanbu.optimizers.boosting import Boosting, leaves_of
from sanbu.space import Space
from sanbu.testing import check_search
from tests.optimizers.trees_common import classes, fit, loss, numbers

EXACT, HISTOGRAM = ({"splits": name, "leaf": 4, "depth": 4} for name in ("exact", "histogram"))


def grown(x, y, limits, seed=0):
    """A tree, the leaf of each row, and its training error with means in its leaves."""
    cuts = histogram.find_cuts(x)
    growth, leaf = histogram.grow(histogram.bins_of(x, cuts), y, cuts, limits, torch.Generator().manual_seed(seed))
    tree = growth.tree(np.zeros((len(growth.feature), 1)))
    error = sum(float((y[leaf == node] - y[leaf == node].mean(0)).square().sum()) for node in leaf.unique())
    return tree, leaf, error


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("depth", [1, 3, None])
def test_the_error_is_that_of_sklearn(missing, outputs, depth):
    """Ties may be broken otherwise, but not by a worse split; 200 values have 199 cuts, so nothing is lost."""
    batch = numbers(missing=missing, outputs=outputs)
    limits = Limits(depth, 5, 200)
    tree, leaf, error = grown(batch["x"], batch["y"], limits)
    theirs = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=5, random_state=0)
    theirs.fit(batch["x"].numpy(), batch["y"].numpy())
    expected = np.square(theirs.predict(batch["x"].numpy()).reshape(200, -1) - batch["y"].numpy()).sum()
    assert error == pytest.approx(expected, rel=1e-3 if missing and depth != 1 else 1e-5)
    assert leaves_of(tree, batch["x"]).equal(leaf)
    counts = leaf.unique(return_counts=True)[1]
    assert counts.min() >= 5 and (depth is None or len(counts) <= 2**depth)


@pytest.mark.parametrize("objective", [Squared(), CrossEntropy()])
def test_boosting_is_the_same_with_few_values(objective):
    batch = numbers(outputs=3) if isinstance(objective, Squared) else classes()
    batch["x"] = (4 * batch["x"]).round() / 4
    models = [
        fit(Trees(trees=10, outputs=3), Boosting(**fields), objective, batch, 10)[0] for fields in (EXACT, HISTOGRAM)
    ]
    assert loss(models[0], objective, batch) == pytest.approx(loss(models[1], objective, batch), rel=0.02)
    assert models[0].forest.feature[0, 0] == models[1].forest.feature[0, 0]
    assert models[0].forest.threshold[0, 0] == models[1].forest.threshold[0, 0]


def test_many_values_have_cuts_at_quantiles():
    x = Noise("cuts").normal(10_000, 2)
    x[:, 1] = 3.0
    cuts = histogram.find_cuts(x)
    assert cuts.shape == (2, histogram.CUTS) and (cuts[1] == histogram.LARGEST).all()
    share = torch.bincount(histogram.bins_of(x, cuts)[:, 0], minlength=histogram.BINS)[: histogram.CUTS - 1] / 10_000
    assert share.min() > 0.0035 and share.max() < 0.0045
    y = (x[:, :1] > 0.5).double()
    _, _, error = grown(x, y, Limits(1, 1, 2))
    assert error < 60  # of 10,000 rows: at most those of one bin are on the wrong side


def test_missing_values_go_to_the_better_side_and_infinite_ones_to_the_ends():
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0], [torch.nan], [torch.nan]])
    for side, target in ((True, [0, 0, 9, 9, 0, 0]), (False, [0, 0, 9, 9, 9, 9])):
        tree, _, error = grown(x, torch.tensor(target)[:, None].double(), Limits(1, 1, 2))
        assert error == 0 and tree.missing_left[0] == side and tree.threshold[0] == 2.5
    tree, _, error = grown(x, torch.tensor([0, 0, 0, 0, 9, 9])[:, None].double(), Limits(1, 1, 2))
    assert error == 0
    ends = leaves_of(tree, torch.tensor([[torch.inf], [-torch.inf], [torch.nan]]))
    assert ends[0] == ends[1] != ends[2]


def test_the_leaves_are_limited_to_the_best_splits():
    batch = numbers(outputs=1)
    tree, leaf, _ = grown(batch["x"], batch["y"], Limits(6, 2, 5))
    assert len(leaf.unique()) == 5 and len(tree.feature) == 9
    tree, leaf, _ = grown(torch.ones(50, 2), batch["y"][:50], Limits(6, 2, 5))
    assert len(tree.feature) == 1 and tree.depth == 0


def test_features_are_drawn_for_each_split():
    chosen = histogram.some_features(200, 10, 0.3, torch.Generator().manual_seed(0))
    assert (chosen.sum(1) == 3).all() and chosen.sum(0).min() > 30 and chosen.sum(0).max() < 90


@pytest.mark.parametrize("leaf", ["all", "one"])
def test_the_public_check(leaf):
    """The cuts are part of the state: a search that is taken up on other rows must keep them."""
    make = lambda: Trees(outputs=4, trees=200, leaf=leaf).build(Space((8,)))
    check_search(Boosting(splits="histogram", rows=0.8, features=0.5), model=make, steps=6)
    search = Boosting(splits="histogram").build({"model": make()}, 1)
    assert search.state_dict() == {}
    search.load_state_dict({"cuts": torch.zeros(2, 3)})
    assert search.state_dict()["cuts"].equal(torch.zeros(2, 3))
