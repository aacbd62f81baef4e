"""Holes that are filled several times: intervals that hold what they promise, and the bench that measures them."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

import sanbu
from bench import table_holes as bench
from sanbu.evaluation.tables.answers import read_rows, sample
from sanbu.models.columns.forest import ColumnForest
from sanbu.models.columns.leaf_law import at
from sanbu.models.columns.trees import Forest, spread
from tests.tables.common import fitted, names, number, space

NAN = float("nan")


def covered(count, further, leaves=4000):
    """How often the middle 80 % of the law of a leaf of so many normal numbers has a further one."""
    draw = np.random.default_rng(0)
    values = np.sort(draw.normal(size=(leaves, count)), 1)
    forest = Forest(0, 32)
    forest.quantiles = torch.from_numpy(np.stack([spread(row, 32) for row in values]))[None]
    forest.range = torch.from_numpy(np.stack([spread(row, 1) for row in values]))[None]
    forest.rows = torch.full((1, leaves), float(count))
    quantiles_BQ, _ = forest.density(torch.zeros(leaves, dtype=torch.long), torch.arange(leaves), further)
    low, high = (at(quantiles_BQ, torch.full((leaves,), share, dtype=torch.float64)).numpy() for share in (0.1, 0.9))
    new = draw.normal(size=leaves)
    return float(((low <= new) & (new <= high)).mean())


@pytest.mark.parametrize("count", [5, 10, 20])
def test_the_law_of_a_further_row_covers_it(count):
    """The error of 4,000 leaves is 0.006; the law of the rows that were seen covers 0.68 with 5 rows."""
    assert abs(covered(count, True) - 0.8) < 0.03
    assert covered(count, False) < 0.8 - 0.3 / count


def test_a_leaf_of_one_number_stays_as_it_is():
    forest = Forest(0, 32)
    forest.quantiles, forest.range, forest.rows = torch.ones(1, 1, 33), torch.ones(1, 1, 2), torch.ones(1, 1)
    zero = torch.zeros(1, dtype=torch.long)
    assert all(tensor.isfinite().all() and (tensor == 1).all() for tensor in forest.density(zero, zero, True))


def lines(rows, seed):
    """A line with noise, and a name that says on which side of it a row is."""
    draw = np.random.default_rng(seed)
    first = draw.normal(size=rows)
    second = np.round(2 * first + draw.normal(size=rows), 2)
    side = (second > 2 * first) ^ (draw.random(rows) < 0.1)
    return np.stack((first, second, side.astype(float)), 1)


@pytest.fixture(scope="module")
def model():
    cells = lines(300, 0)
    where = space(number("a", -5, 5), number("b", -12, 12, decimals=2), names("c", "below", "above"))
    return fitted(ColumnForest(), where, cells)


def test_only_numbers_have_a_wider_law(model):
    rows = torch.from_numpy(lines(2000, 1))
    known = torch.zeros_like(rows, dtype=torch.bool)
    uniform = torch.from_numpy(np.random.default_rng(2).random(2000))
    laws = [model.law(rows, known, 2, further) for further in (False, True)]
    assert laws[0].draw(uniform).equal(laws[1].draw(uniform))
    for row in rows[:20]:
        widths = [model.law(row.expand(2000, -1), None, 1, further).draw(uniform).std() for further in (False, True)]
        assert widths[1] > widths[0]
    seen, further = (model.law(rows, known, 1, each) for each in (False, True))
    mass = further.log_prob(rows[:, 1])
    assert mass.mean() > seen.log_prob(rows[:, 1]).mean()  # held-out rows are likelier


def test_a_wider_law_sums_to_one_and_is_what_is_drawn(model):
    row = torch.from_numpy(lines(1, 3))
    cells = lines(300, 0)[:, 1]
    first, last = (cells.min() * 100).round(), (cells.max() * 100).round()
    grid = torch.arange(first, last + 1, dtype=torch.float64) / 100
    mass = model.law(row.expand(len(grid), -1), None, 1, True).log_prob(grid).exp() * 0.01
    assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    drawn = model.law(row.expand(4000, -1), None, 1, True).draw(uniform).sort().values
    shares = torch.searchsorted(drawn, grid + 0.005).double() / 4000
    assert (shares - mass.cumsum(0)).abs().max() < 0.01


def test_holes_of_a_run_are_filled_by_the_wider_law(tmp_path):
    run = sanbu.train(sanbu.recipes.table(path="iris"), tmp_path / "run", watchers=[])
    holes = tmp_path / "holes.csv"
    holes.write_text("petal length,species\n" + "1.4,setosa\n" * 40)
    rows = read_rows(run, str(holes))
    condition = run.codec.complete(rows.cells, rows.given)
    found = sample(run, rows, 0)
    for law, same in (("further", True), ("seen", False)):
        drawing = run.drawing(fields={"missing": "never", "law": law})
        assert found.equal(torch.cat(drawing.parts(condition, 0, lambda reader: reader.sample))) is same


# -- the bench --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [0.0, 1.0])
def test_draws_from_the_true_law_cover_what_they_promise(grid):
    """6,000 holes: an error of 0.005; also where most draws are equal."""
    draw = np.random.default_rng(0)
    every = draw.normal(size=(bench.DRAWS + 1, 3000, 2))
    every = np.round(every / grid) * grid if grid else every
    found = bench.figures(every[:-1], every[-1], np.ones((3000, 2), dtype=bool), draw)
    assert abs(found["cover80"] - 0.8) < 0.02 and abs(found["cover90"] - 0.9) < 0.015
    narrow = bench.figures(0.7 * every[:-1], every[-1], np.ones((3000, 2), dtype=bool), draw)
    assert narrow["cover80"] < 0.72 and narrow["mae"] < found["mae"]


def test_errors_are_in_ranges_of_the_column():
    truth, holes = np.array([[0.0], [10.0], [4.0]]), np.array([[False], [False], [True]])
    drawn = np.broadcast_to(truth, (bench.DRAWS, 3, 1)).copy()
    drawn[:, 2] = 5.0
    drawn[0, 2] = 9.0
    found = bench.figures(drawn, truth, holes, np.random.default_rng(0))
    assert found["mae"] == pytest.approx((0.1 * (bench.DRAWS - 1) + 0.5) / bench.DRAWS)
    assert found["mae_median"] == pytest.approx(0.1)


def test_chained_equations_fill_holes_with_cells_of_their_leaf():
    cells = lines(200, 4)
    holes = np.zeros(cells.shape, dtype=bool)
    holes[:50, 0], holes[40:90, 1] = True, True
    given = np.where(holes, NAN, cells)
    filled = bench.chain(given.copy(), holes, [True, True, False], np.random.default_rng(0))
    assert (filled[~holes] == cells[~holes]).all() and not np.isnan(filled).any()
    assert set(filled[holes[:, 1], 1]) <= set(cells[~holes[:, 1], 1])
    assert np.corrcoef(filled[:50, 0], cells[:50, 0])[0, 1] > 0.6
    forest = RandomForestRegressor(3, min_samples_leaf=50, random_state=0).fit(cells[:, :1], cells[:, 1])
    one = bench.donors(forest, cells[:, :1], cells[:, 1], holes[:, 0], np.random.default_rng(0))
    assert len(one) == 50 and set(one) <= set(cells[50:, 1])
