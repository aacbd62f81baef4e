"""A forest of arrays goes where scikit-learn's trees go, to the last bit."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor

from sanbu.layers.forest import Forest, rounded_down
from sanbu.layers.forest_memory import Memory, contents
from sanbu.layers.growing import Limits, as_tree, grow


def inputs(rows=300, features=5, missing=0.1, seed=0, coarse=False):
    """Numbers with ties, holes and values on cuts."""
    noise = np.random.default_rng(seed)
    x = noise.normal(size=(rows, features))
    x = np.round(4 * x) / 4 if coarse else x
    x[noise.random(x.shape) < missing] = np.nan
    return x.astype(np.float32)


def grown(x, outputs=3, trees=7, depth=None, seed=0, each=False):
    """A forest, and the trees it was made of."""
    noise = np.random.default_rng(seed)
    limits, made = Limits(depth, 1, 1024), []
    forest = Forest(outputs, trees, 1024, each)
    for number in range(trees):
        y = noise.normal(size=(len(x), 1 if each else outputs))
        made.append(grow(x, y, limits, number))
        forest.write(as_tree(made[-1], made[-1].tree_.value[:, :, 0]))
    return forest, made


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("depth", [1, 4, None])
def test_leaves_and_values_are_those_of_sklearn(missing, depth):
    x = inputs(missing=missing, coarse=True)
    forest, trees = grown(x, depth=depth)
    others = inputs(500, missing=missing, seed=1, coarse=True)
    for rows in (x, others):
        expected = np.stack([tree.apply(rows) for tree in trees], 1)
        assert np.array_equal(forest.leaves(torch.from_numpy(rows)).numpy(), expected)
        total = np.zeros((len(rows), 3), np.float32)
        for tree in trees:
            total += tree.predict(rows).astype(np.float32)
        assert np.array_equal(forest(torch.from_numpy(rows)).numpy(), total)


def test_missing_values_that_no_tree_has_seen():
    forest, trees = grown(inputs(missing=0))
    rows = inputs(200, missing=0.5, seed=2)
    expected = np.stack([tree.apply(rows) for tree in trees], 1)
    assert np.array_equal(forest.leaves(torch.from_numpy(rows)).numpy(), expected)


def test_rows_on_a_cut_go_where_sklearn_sends_them():
    """The middle of two neighbouring float32 is no float32: rounded up, the upper one would change its side."""
    low = np.nextafter(np.float32(3), np.float32(4))
    high = np.nextafter(low, np.float32(4))
    x = np.array([[low], [high]], np.float32)
    tree = DecisionTreeRegressor().fit(x, [0.0, 1.0])
    assert low < tree.tree_.threshold[0] < high
    assert np.float32(tree.tree_.threshold[0]) == high and rounded_down(tree.tree_.threshold[:1])[0] == low
    forest = Forest(1, 1, 2)
    forest.write(as_tree(tree, tree.tree_.value[:, :, 0]))
    assert forest(torch.from_numpy(x)).flatten().tolist() == [0.0, 1.0]


def test_rounding_down_decides_as_float64_does():
    noise = np.random.default_rng(0)
    cuts = noise.normal(size=1000) * 10.0 ** noise.integers(-30, 30, 1000)
    rounded = rounded_down(cuts)
    for near in (rounded, np.nextafter(rounded, np.float32(np.inf)), np.nextafter(rounded, np.float32(-np.inf))):
        assert np.array_equal(near.astype(np.float64) <= cuts, near <= rounded)


def test_a_split_between_missing_and_all_other_rows():
    x = np.array([[1], [2], [np.nan], [np.nan]], np.float32)
    tree = DecisionTreeRegressor().fit(x, [1.0, 1.0, 2.0, 2.0])
    forest = Forest(1, 1, 2)
    forest.write(as_tree(tree, tree.tree_.value[:, :, 0]))
    assert np.isinf(tree.tree_.threshold[0]) and bool(forest.threshold.isfinite().all())
    rows = torch.tensor([[1.0], [1e38], [float("inf")], [-float("inf")], [float("nan")]])
    assert forest(rows).flatten().tolist() == [1, 1, 1, 1, 2]


def test_infinite_inputs_go_to_the_ends():
    x = inputs(missing=0)
    forest, _ = grown(x)
    least, most = (torch.full((1, 5), value) for value in (-1e30, 1e30))
    assert forest(-torch.full((1, 5), float("inf"))).equal(forest(least))
    assert forest(torch.full((1, 5), float("inf"))).equal(forest(most))


@pytest.mark.parametrize("each", [False, True])
def test_a_row_alone_and_in_a_batch(each, monkeypatch):
    x = torch.from_numpy(inputs())
    forest, _ = grown(x.numpy(), trees=9, each=each)
    whole = forest(x)
    assert whole.equal(torch.cat([forest(row[None]) for row in x]))
    monkeypatch.setattr("sanbu.layers.forest.AT_ONCE", 100)
    assert whole.equal(forest(x))
    assert forest(x[:0]).shape == (0, 3)


def test_trees_of_one_output_are_summed_by_output():
    x = inputs()
    forest, trees = grown(x, trees=6, each=True)
    expected = np.zeros((len(x), 3), np.float32)
    for number, tree in enumerate(trees):
        expected[:, number % 3] += tree.predict(x).astype(np.float32)
    assert np.array_equal(forest(torch.from_numpy(x)).numpy(), expected)


@pytest.mark.parametrize("each", [False, True])
def test_a_memory_gives_the_same_bits(each):
    """Rows known through different numbers of trees, duplicates, new rows, and a memory that began in the middle."""
    x = torch.from_numpy(inputs())
    whole, _ = grown(x.numpy(), trees=12, each=each)
    forest = Forest(3, 12, 1024, each)
    early, late, tiny = Memory(), Memory(), Memory(most=3 * 50)
    places = [torch.arange(0, 200), torch.arange(100, 300), torch.arange(300), torch.tensor([5, 5, 299])]
    for number in range(0, 12, 3):
        for name, array in forest.named_buffers():
            kept = getattr(whole, name).clone()
            array.copy_(kept)
        forest.state[0] = number + 3
        rows = x[places[number // 3]]
        expected = forest(rows)
        for memory in [early, tiny] + ([late] if number > 3 else []):
            forest.memory = memory
            assert forest(rows).equal(expected) and forest(rows).equal(expected)
            forest.memory = None
    assert early.again and len(early.keys) == 300


def test_a_memory_gives_up_where_no_row_comes_again():
    forest, _ = grown(inputs())
    forest.memory = Memory(most=3 * 500)
    for seed in range(4):
        x = torch.from_numpy(inputs(seed=seed))
        assert forest(x).equal(forest.sum(x) + 0.0)
    assert forest.memory.most == 0 and not len(forest.memory.keys)


def test_contents_differ_where_rows_do():
    x = torch.cartesian_prod(*[torch.tensor([0.0, 2.0, float("nan")])] * 9)
    assert len(contents(x).unique()) == 3**9
    assert contents(x[7:8]).equal(contents(x)[7:8])


def test_a_full_forest_refuses():
    forest, trees = grown(inputs(), trees=2)
    with pytest.raises(ValueError, match="no room for tree 3"):
        forest.write(as_tree(trees[0], trees[0].tree_.value[:, :, 0]))
