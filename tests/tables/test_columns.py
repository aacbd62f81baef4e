"""Models of columns against enumerations and closed forms, and the strategy that draws cells from them."""

import math

import numpy as np
import pytest
import torch

from sanbu.codecs.columns import Column
from sanbu.models.columns.copula import Copula
from sanbu.models.columns.forest import ColumnForest
from sanbu.models.columns.leaf_law import at, pick, share_below
from sanbu.models.columns.margins import Margins
from sanbu.models.columns.ridge import ridge
from sanbu.models.columns.trees import below, shares, spread
from sanbu.objectives.columns import Columns
from sanbu.space import Space
from sanbu.strategies.cells import Cells
from sanbu.testing import check_objective, check_strategy
from tests.tables.common import (
    BINARY,
    STATES,
    binary_rows,
    counts_of,
    drawn,
    enough,
    fitted,
    given,
    names,
    number,
    space,
)

FOREST = ColumnForest(trees=3, leaf=5)


@pytest.fixture(scope="module")
def binary():
    return fitted(FOREST, BINARY, binary_rows())


def mixed_rows(count=1500):
    """A name, a number that follows it, a mixed whole number, and a number that is partly missing."""
    draw = np.random.default_rng(1)
    name = draw.integers(0, 3, count).astype(float)
    size = np.round(2.0 * name + draw.normal(size=count), 2)
    gain = np.where(draw.random(count) < 0.7, 0, draw.integers(5, 200, count)).astype(float)
    part = np.where(draw.random(count) < 0.2, np.nan, np.round(size + 0.1 * draw.normal(size=count), 1))
    return np.stack((name, size, gain, part), 1)


def mixed_space(rows):
    return space(
        names("name", "x", "y", "z"),
        number("size", rows[:, 1].min(), rows[:, 1].max(), decimals=2),
        Column(name="gain", type="integer", low=0.0, high=rows[:, 2].max(), decimals=0, spikes=(0.0,)),
        number("part", np.nanmin(rows[:, 3]), np.nanmax(rows[:, 3]), decimals=1, missing=True),
    )


@pytest.fixture(scope="module")
def mixed():
    rows = mixed_rows()
    return fitted(FOREST, mixed_space(rows), rows), mixed_space(rows), rows


# -- the forest -------------------------------------------------------------------------------------------------------


def test_the_joint_of_three_columns_sums_to_one_and_is_what_is_drawn(binary):
    joint = binary(STATES, None).sum(1).exp()
    assert float(joint.sum()) == pytest.approx(1, abs=1e-9)
    sample = drawn(binary, BINARY, {}, 20_000)
    assert enough(counts_of(sample.sample), joint) > 1e-4
    torch.testing.assert_close(sample.record["log_prob"], binary(sample.sample, None).sum(1))


def test_the_forest_finds_what_the_rows_have(binary):
    rows = binary_rows()
    shares = counts_of(torch.from_numpy(rows)).double() / len(rows)
    torch.testing.assert_close(binary(STATES, None).sum(1).exp(), shares, atol=0.02, rtol=0)


@pytest.mark.parametrize("hole", [0, 1, 2])
@pytest.mark.parametrize("state", [0, 3, 6])
def test_a_hole_is_filled_by_the_conditional(binary, hole, state):
    """Also where the given cells come later in the order of the model: by particles."""
    joint = binary(STATES, None).sum(1).exp()
    pair = [STATES[state].clone() for _ in (0, 1)]
    for value, row in enumerate(pair):
        row[hole] = value
    chance = torch.stack([joint[int(row @ torch.tensor([4.0, 2, 1], dtype=torch.float64))] for row in pair])
    chance = chance / chance.sum()
    cells = [None if place == hole else float(STATES[state][place]) for place in range(3)]
    sample = drawn(binary, BINARY, given(*cells), 4000).sample
    assert enough(torch.bincount(sample[:, hole].long(), minlength=2), chance) > 1e-4
    kept = [place for place in range(3) if place != hole]
    assert sample[:, kept].equal(STATES[state][kept].expand(4000, -1))


def test_a_condition_on_the_last_column_changes_the_first(binary):
    joint = binary(STATES, None).sum(1).exp().view(2, 2, 2)
    expected = (joint[:, :, 1] / joint[:, :, 1].sum()).flatten()
    sample = drawn(binary, BINARY, given(None, None, 1), 6000).sample
    found = torch.bincount((sample[:, 0] * 2 + sample[:, 1]).long(), minlength=4)
    assert enough(found, expected) > 1e-4


def test_every_law_of_whole_numbers_sums_to_one(mixed):
    model, _where, rows = mixed
    row = torch.from_numpy(rows[5:6])
    values = torch.arange(0, rows[:, 2].max() + 1, dtype=torch.float64)
    law = model.law(row.expand(len(values), -1), None, 2)
    assert float(law.log_prob(values).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_a_density_with_missing_cells_sums_to_one(mixed):
    model, where, rows = mixed
    column = where.columns[3]
    values = torch.arange(column.low, column.high + 0.05, 0.1, dtype=torch.float64)
    values = torch.cat([(values * 10).round() / 10, torch.tensor([math.nan], dtype=torch.float64)])
    mass = model.law(torch.from_numpy(rows[7:8]).expand(len(values), -1), None, 3).log_prob(values).exp()
    assert float(mass[:-1].sum() * 0.1 + mass[-1]) == pytest.approx(1, abs=2e-3)
    assert 0.1 < float(mass[-1]) < 0.4


def test_numbers_are_drawn_by_their_law_on_the_grid(mixed):
    model, where, rows = mixed
    sample = drawn(model, where, {}, 3000).sample
    assert sample[:, 1].mul(100).sub(sample[:, 1].mul(100).round()).abs().max() < 1e-9
    assert abs(float((sample[:, 2] == 0).double().mean()) - (rows[:, 2] == 0).mean()) < 0.03
    assert abs(float(sample[:, 3].isnan().double().mean()) - np.isnan(rows[:, 3]).mean()) < 0.03
    for name in range(3):
        mine, theirs = sample[sample[:, 0] == name, 1], rows[rows[:, 0] == name, 1]
        assert abs(float(mine.mean()) - theirs.mean()) < 0.15 and abs(float(mine.std()) - theirs.std()) < 0.15
    both = ~sample[:, 3].isnan()
    assert float(torch.corrcoef(sample[both][:, [1, 3]].T)[0, 1]) > 0.98
    assert sample[:, 2].max() <= rows[:, 2].max() and sample[:, 2].min() >= 0


def test_a_law_and_its_draws_agree(mixed):
    """The share of draws up to each value is the mass that the law has there."""
    model, where, rows = mixed
    count = 4000
    cells = torch.from_numpy(rows[10:11]).expand(count, -1)
    law = model.law(cells, None, 1)
    drawn_B = law.draw((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    values, found = drawn_B.unique(return_counts=True)
    grid = torch.arange(where.columns[1].low, where.columns[1].high + 0.005, 0.01, dtype=torch.float64)
    mass = model.law(cells[: len(grid)], None, 1).log_prob((grid * 100).round() / 100).exp() * 0.01
    below = found.cumsum(0)[torch.searchsorted(values, grid + 0.001, right=True) - 1] / count
    inside = grid > values[0]
    assert float((below - mass.cumsum(0))[inside].abs().max()) < 2e-3 and float(mass.sum()) == pytest.approx(
        1, abs=1e-3
    )


def test_cells_that_no_training_row_could_have_are_left_out(mixed):
    model, _where, rows = mixed
    row = torch.from_numpy(rows[3:4]).clone()
    row[0, 1] = math.nan
    assert float(model(row, None)[0, 1]) == 0 and model(row, None).isfinite().all()


def test_no_row_of_the_data_is_kept(mixed):
    """Leaves hold quantiles of residuals and shares of levels; no parameter has one entry per row."""
    model, _, rows = mixed
    assert all(len(rows) not in tensor.shape for tensor in model.state_dict().values())


def test_a_fitted_model_survives_its_file(mixed, tmp_path):
    from sanbu.files import load_weights, read_tensors, weights, write_tensors

    model, where, rows = mixed
    path = tmp_path / "model.safetensors"
    write_tensors(path, weights(model))
    other = FOREST.build(where)
    load_weights(other, read_tensors(path), path)
    row = torch.from_numpy(rows[:20])
    assert other(row, None).equal(model(row, None))


def test_constant_columns_stay_constant():
    rows = np.stack((np.full(60, 7.0), np.zeros(60), np.arange(60) % 5 / 2, np.full(60, np.nan)), 1)
    where = space(
        Column(name="same", type="integer", low=7.0, high=7.0, decimals=0, spikes=(7.0,)),
        names("one", "x"), number("free", 0.0, 2.0, decimals=1),
        Column(name="none", type="integer", missing=True, decimals=0),
    )  # fmt: skip
    for config in (FOREST, Copula()):
        sample = drawn(fitted(config, where, rows), where, {}, 200).sample
        assert sample[:, 0].eq(7).all() and sample[:, 1].eq(0).all() and sample[:, 3].isnan().all()
        assert len(sample[:, 2].unique()) > 2


# -- parts ------------------------------------------------------------------------------------------------------------


def test_ridge_residuals_are_those_of_the_fit_without_the_row():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(30, 4)), draw.normal(size=30)
    weights, constant, residual = ridge(x, y)
    from sklearn.linear_model import RidgeCV

    peer = RidgeCV(alphas=(0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 1e5), store_cv_results=True).fit(x, y)
    assert np.allclose(weights, peer.coef_) and constant == pytest.approx(peer.intercept_)
    best = peer.cv_results_.mean(0).argmin()
    assert np.allclose(residual**2, peer.cv_results_[:, best])


def test_thresholds_in_single_precision_split_the_same_rows():
    draw = np.random.default_rng(0)
    exact = draw.normal(size=1000)
    x = np.concatenate((exact.astype(np.float32), np.nextafter(exact.astype(np.float32), np.float32(9))))
    cut = np.concatenate((exact, exact))
    assert ((x <= cut) == (x <= below(cut))).all() and below(cut).dtype == np.float32


def test_values_are_spread_half_way_to_their_neighbours():
    assert shares(3).tolist() == pytest.approx([0, 0.25, 0.75, 1])
    assert spread(np.array([1.0, 2.0, 4.0]), 3).tolist() == pytest.approx([0.5, 1.25, 3.5, 5.0])
    quantiles = torch.tensor([[0.5, 1.25, 3.5, 5.0]], dtype=torch.float64)
    for share, value in ((0.0, 0.5), (0.125, 0.875), (0.5, 2.375), (1.0, 5.0)):
        assert float(at(quantiles, torch.tensor([share]).double())) == pytest.approx(value)
        assert float(share_below(quantiles, torch.tensor([value]).double())) == pytest.approx(share)
    assert float(share_below(quantiles, torch.tensor([9.0]).double())) == 1
    assert float(share_below(quantiles, torch.tensor([-9.0]).double())) == 0


def test_a_uniform_picks_levels_by_their_shares():
    law = torch.tensor([[0.2, 0.0, 0.3, 0.5]], dtype=torch.float64).expand(1000, -1)
    level, within = pick(law, (torch.arange(1000).double() + 0.5) / 1000)
    assert torch.bincount(level, minlength=4).tolist() == [200, 0, 300, 500]
    assert within[level == 3].sort().values.allclose((torch.arange(500).double() + 0.5) / 500)


def test_margins_turn_values_into_scores_and_back():
    draw = np.random.default_rng(0)
    values = np.round(draw.gamma(2.0, size=3000), 3)
    margins = Margins([number("a", values.min(), values.max(), decimals=3)])
    margins.fit(torch.from_numpy(values)[:, None])
    score = margins.score(torch.from_numpy(values), 0)
    assert abs(float(score.mean())) < 0.02 and abs(float(score.std()) - 1) < 0.05
    assert margins.value(score, 0).allclose(torch.from_numpy(values), atol=1e-6)
    often = Margins([number("a", 0.0, 3.0)])
    often.fit(torch.tensor([0.0] * 20 + [1.0] * 60 + [2.0, 3.0] * 10, dtype=torch.float64)[:, None])
    assert float(often.score(torch.tensor([1.0]).double(), 0)) == pytest.approx(0.0, abs=0.05)
    beyond = margins.score(torch.tensor([-1.0, 1e30]).double(), 0)
    assert beyond[0] < score.min() and beyond[1] > score.max() and beyond.isfinite().all()


# -- the copula -------------------------------------------------------------------------------------------------------


def normal_copula(correlation, mean, deviation):
    """A copula whose margins are exactly normal: knots on a line of scores."""
    columns = [
        number(f"c{place}", m - 20 * s, m + 20 * s) for place, (m, s) in enumerate(zip(mean, deviation, strict=True))
    ]
    where = space(*columns)
    model = Copula().build(where)
    scores = torch.linspace(-8, 8, model.margins.knots.shape[1], dtype=torch.float64)
    model.margins.scores[:] = scores
    model.margins.knots[:] = torch.stack([m + s * scores for m, s in zip(mean, deviation, strict=True)])
    model.correlation.copy_(correlation)
    return model, where


R = torch.tensor([[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]], dtype=torch.float64)
MEAN, DEVIATION = torch.tensor([1.0, -2.0, 10.0]).double(), torch.tensor([0.5, 2.0, 3.0]).double()


def test_with_normal_margins_the_copula_is_a_gaussian():
    model, _where = normal_copula(R, MEAN.tolist(), DEVIATION.tolist())
    law = torch.distributions.MultivariateNormal(MEAN, DEVIATION[:, None] * R * DEVIATION)
    rows = law.sample((50,))
    torch.testing.assert_close(model(rows, None).sum(1), law.log_prob(rows), atol=1e-4, rtol=0)


def test_the_order_of_a_copula_changes_no_joint():
    """Also where a column that is drawn later stands before."""
    model, _ = normal_copula(R, MEAN.tolist(), DEVIATION.tolist())
    rows = torch.distributions.MultivariateNormal(MEAN, DEVIATION[:, None] * R * DEVIATION).sample((20,))
    before = model(rows, None)
    model.order = (0, 2, 1)
    torch.testing.assert_close(model(rows, None).sum(1), before.sum(1), atol=1e-4, rtol=0)


def test_holes_of_a_gaussian_are_conditionally_normal():
    model, where = normal_copula(R, MEAN.tolist(), DEVIATION.tolist())
    covariance = DEVIATION[:, None] * R * DEVIATION
    sample = drawn(model, where, given(None, -1.0, 13.0), 20_000).sample
    weights = covariance[:1, 1:] @ torch.linalg.inv(covariance[1:, 1:])
    mean = MEAN[0] + weights[0] @ (torch.tensor([-1.0, 13.0]).double() - MEAN[1:])
    variance = covariance[0, 0] - (weights @ covariance[1:, :1])[0, 0]
    assert float(sample[:, 0].mean()) == pytest.approx(float(mean), abs=4 * float(variance.sqrt()) / 141)
    assert float(sample[:, 0].var()) == pytest.approx(float(variance), rel=0.05)
    assert sample[:, 1].eq(-1).all() and sample[:, 2].eq(13).all()


def test_the_rank_correlation_of_a_copula():
    """Spearman's rho is 6/pi asin(r/2)."""
    from scipy.stats import spearmanr

    model, where = normal_copula(R, MEAN.tolist(), DEVIATION.tolist())
    rho = spearmanr(drawn(model, where, {}, 20_000).sample.numpy()).statistic
    assert np.allclose(rho, 6 / np.pi * np.arcsin(R.numpy() / 2), atol=0.025)


def test_a_copula_finds_margins_and_correlation():
    rows = mixed_rows()
    where = mixed_space(rows)
    model = fitted(Copula(), where, rows)
    sample = drawn(model, where, {}, 4000).sample
    shares = torch.bincount(sample[:, 0].long()) / 4000
    assert np.allclose(shares, np.bincount(rows[:, 0].astype(int)) / len(rows), atol=0.03)
    assert abs(float((sample[:, 2] == 0).double().mean()) - (rows[:, 2] == 0).mean()) < 0.03
    assert abs(float(sample[:, 3].isnan().double().mean()) - np.isnan(rows[:, 3]).mean()) < 0.03
    mine, theirs = np.quantile(sample[:, 1], (0.1, 0.5, 0.9)), np.quantile(rows[:, 1], (0.1, 0.5, 0.9))
    assert np.allclose(mine, theirs, atol=0.25)
    assert float(torch.corrcoef(sample[:, :2].T)[0, 1]) > 0.6


# -- strategy, objective ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [FOREST, Copula()])
def test_cells_keep_the_contract_of_a_strategy(config):
    rows = mixed_rows()[:, :3]
    where = Space((3,), columns=mixed_space(mixed_rows()).columns[:3])
    model = fitted(config, where, rows)
    conditions = [given(None, None, None), given(1, None, None), given(None, 2.5, 0), given(2, None, 50)]
    condition = {name: torch.cat([each[name] for each in conditions]) for name in ("cells", "given")}
    check_strategy(Cells(particles=20), {"model": model}, where, condition)


def test_a_filling_is_never_missing(mixed):
    model, where, rows = mixed
    for each in (model, fitted(Copula(), where, rows)):
        assert drawn(each, where, {}, 300).sample[:, 3].isnan().any()
        assert not drawn(each, where, {}, 300, missing="never").sample.isnan().any()


def test_given_cells_come_back_bit_for_bit(mixed):
    model, where, rows = mixed
    holes = torch.from_numpy(rows[:300]).clone()
    known = torch.rand(holes.shape) < 0.6
    strategy = Cells(particles=10).build(where)
    from sanbu.strategies.strategy import draw

    for each in (model, fitted(Copula(), where, rows)):
        sample = draw(strategy, {"model": each}, {"cells": holes, "given": known}, torch.arange(300)).sample
        torch.testing.assert_close(sample[known], holes[known], rtol=0, atol=0, equal_nan=True)


def test_the_likelihood_of_rows_is_a_sum(mixed):
    model, _where, _rows = mixed
    whole = mixed_rows()[:6]
    check_objective(Columns(), model, {"cells": torch.from_numpy(np.nan_to_num(whole, nan=0.5))})
