"""Columns as symbols: boosted trees and the transformer, against enumerations."""

from itertools import permutations

import numpy as np
import pytest
import torch

from sanbu.codecs.columns import Column
from sanbu.config import SanbuError
from sanbu.models.columns.boosted import ColumnBoosted, slope
from sanbu.models.columns.margins import Margins
from sanbu.models.columns.symbols import SymbolLaw, log_mass, weights
from sanbu.models.columns.transformer import ColumnTransformer
from sanbu.noise import Noise
from sanbu.objectives.columns import Columns
from sanbu.objectives.objective import Round
from sanbu.strategies.cells import Cells
from sanbu.testing import check_strategy
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

BOOSTED = ColumnBoosted(rounds=40, depth=3)
SMALL = ColumnTransformer(layers=1, width=16, heads=2, bins=8)


def trained(config, where, rows, steps, seed=0):
    """A transformer after some steps of Adam on the any-order objective."""
    torch.manual_seed(seed)
    model, objective = config.build(where), Columns(order="any").build()
    cells = torch.as_tensor(rows, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        batch = {"cells": cells[torch.randint(len(cells), (256,))] if step else cells}
        batch = objective.experience(Round({"model": model}, batch, Noise(step, "test")))
        optimizer.zero_grad()
        loss = objective.loss({"model": model}, batch).sums["rows"] / len(batch["cells"])
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def boosted():
    return fitted(BOOSTED, BINARY, binary_rows())


@pytest.fixture(scope="module")
def transformer():
    return trained(SMALL, BINARY, binary_rows(), 300)


def mixed():
    """A name, a number with a spike that follows it, and a number that is partly missing."""
    draw = np.random.default_rng(0)
    name = draw.integers(0, 3, 900).astype(float)
    size = np.where(draw.random(900) < 0.3, 0.0, np.round(4 * name + draw.normal(size=900), 1))
    part = np.where(draw.random(900) < 0.2, np.nan, np.round(size + draw.normal(size=900), 1))
    rows = np.stack((name, size, part), 1)
    where = space(
        names("name", "x", "y", "z"),
        number("size", size.min(), size.max(), decimals=1, spikes=(0.0,)),
        number("part", np.nanmin(part), np.nanmax(part), decimals=1, missing=True),
    )
    return rows, where


@pytest.mark.parametrize("kind", ["boosted", "transformer"])
def test_the_joint_of_three_columns_sums_to_one_and_is_what_is_drawn(kind, request):
    model = request.getfixturevalue(kind)
    nothing = torch.zeros(8, 3, dtype=torch.bool)
    with torch.no_grad():
        joint = model(STATES, nothing).sum(1).exp()
        sample = drawn(model, BINARY, {}, 20_000)
        again = model(sample.sample, torch.zeros(20_000, 3, dtype=torch.bool)).sum(1)
    assert float(joint.sum()) == pytest.approx(1, abs=1e-6)
    assert enough(counts_of(sample.sample), joint) > 1e-4
    torch.testing.assert_close(sample.record["log_prob"], again, atol=1e-4, rtol=0)
    shares = counts_of(torch.from_numpy(binary_rows())).double() / 4000
    torch.testing.assert_close(joint, shares, atol=0.03, rtol=0)


def test_the_joint_sums_to_one_in_every_order_and_orders_agree(transformer):
    shares = counts_of(torch.from_numpy(binary_rows())).double() / 4000
    own = transformer.order
    for order in permutations(range(3)):
        transformer.order = order
        with torch.no_grad():
            joint = transformer(STATES, torch.zeros(8, 3, dtype=torch.bool)).sum(1).exp()
        assert float(joint.sum()) == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(joint, shares, atol=0.03, rtol=0)
    transformer.order = own


@pytest.mark.parametrize("hole", [0, 1, 2])
def test_conditionals_of_any_cells_are_those_of_the_rows(transformer, hole):
    shares = counts_of(torch.from_numpy(binary_rows())).double().view(2, 2, 2) / 4000
    truth = (shares / shares.sum(hole, keepdim=True)).flatten()
    known = torch.ones(8, 3, dtype=torch.bool)
    known[:, hole] = False
    with torch.no_grad():
        found = transformer(STATES, known, True)
        law = transformer.law(STATES, known, hole).log_prob(STATES[:, hole])
    torch.testing.assert_close(found[:, hole].exp(), truth, atol=0.06, rtol=0)
    torch.testing.assert_close(found[:, hole], law)
    assert found[:, known[0]].eq(0).all()


def test_a_hole_is_filled_by_the_law_without_particles(transformer):
    sample = drawn(transformer, BINARY, given(None, 1, 0), 4000)
    with torch.no_grad():
        law = transformer.law(torch.tensor([[0.0, 1, 0]] * 2).double(), torch.tensor([[False, True, True]] * 2), 0)
    chance = law.log_prob(torch.tensor([0.0, 1.0]).double()).exp()
    assert enough(torch.bincount(sample.sample[:, 0].long(), minlength=2), chance) > 1e-4
    assert sample.sample[:, 1].eq(1).all() and sample.sample[:, 2].eq(0).all()


def test_the_cell_that_is_asked_for_does_not_reach_its_own_law(transformer):
    with torch.no_grad():
        laws = [transformer.law(cells, torch.ones(1, 3, dtype=torch.bool), 2).log_law for cells in STATES[:2].split(1)]
    assert laws[0].equal(laws[1])


def test_the_any_order_loss_is_the_mean_over_orders(transformer):
    """Over many draws of the given cells: the mean of -log p(row) over all six orders."""
    row, own, exact = STATES[3:4], transformer.order, []
    with torch.no_grad():
        for order in permutations(range(3)):
            transformer.order = order
            exact.append(-float(transformer(row, torch.zeros(1, 3, dtype=torch.bool)).sum()))
        transformer.order = own
        objective = Columns(order="any").build()
        batch = {"cells": row.expand(20_000, -1)}
        batch = objective.experience(Round({"model": transformer}, batch, Noise(1, "test")))
        found = float(objective.loss({"model": transformer}, batch).sums["rows"]) / 20_000
    assert found == pytest.approx(np.mean(exact), abs=0.02)


def test_a_model_with_one_order_is_refused(boosted):
    with pytest.raises(SanbuError, match="column-transformer"):
        Columns(order="any").build().experience(Round({"model": boosted}, {"cells": STATES}, Noise(0, "test")))


@pytest.mark.parametrize("kind", ["boosted", "transformer"])
def test_every_law_sums_to_one_and_agrees_with_its_draws(kind):
    rows, where = mixed()
    model = fitted(BOOSTED, where, rows) if kind == "boosted" else trained(SMALL, where, rows, 40)
    known = torch.zeros(1, 3, dtype=torch.bool)
    for place in (1, 2):
        column = where.columns[place]
        grid = np.round(np.arange(column.low, column.high + 0.05, 0.1), 1) + 0.0
        values = torch.tensor([*grid, *([np.nan] if column.missing else [])], dtype=torch.float64)
        row = torch.from_numpy(rows[4:5])
        with torch.no_grad():
            law = model.law(row.expand(len(values), -1), known.expand(len(values), -1), place)
            mass = law.log_prob(values).exp() * torch.where(values.isnan(), 1.0, 0.1)
            count = 5000
            law = model.law(row.expand(count, -1), known.expand(count, -1), place)
            sample = law.draw((torch.arange(count, dtype=torch.float64) + 0.5) / count)
        assert float(mass.sum()) == pytest.approx(1, abs=5e-3)
        for value, chance in zip(values, mass, strict=True):
            same = sample.isnan() if value.isnan() else (sample - value).abs() < 0.01
            assert float(same.double().mean()) == pytest.approx(float(chance), abs=5e-3)


def test_weights_of_a_grid_sum_to_one_for_each_symbol():
    column = Column(name="a", type="integer", low=0.0, high=9.0, decimals=0, spikes=(0.0,), missing=True)
    margins = Margins([column])
    margins.fit(torch.arange(10).double().repeat(20)[:, None])
    cells = torch.tensor([*range(1, 10), np.nan, 0.0], dtype=torch.float64)
    weight = weights(column, 0, margins, cells, 4)
    torch.testing.assert_close(weight.sum(0), torch.ones(6, dtype=torch.float64))
    never = SymbolLaw(column, 0, margins, torch.zeros(50, 6).log_softmax(1)).draw(
        torch.linspace(0.01, 0.99, 50).double(), False
    )
    assert not never.isnan().any()


def test_the_slope_of_boosting_is_that_of_the_likelihood():
    scores = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(6, 4, dtype=torch.float64) * (torch.rand(6, 4) < 0.7) + 0.01
    (-log_mass(scores.log_softmax(1), weight).sum()).backward()
    torch.testing.assert_close(slope(scores.detach(), weight).double(), scores.grad, atol=1e-6, rtol=0)


def test_boosting_raises_the_likelihood_over_the_shares():
    rows, where = mixed()
    cells, known = torch.from_numpy(rows), torch.zeros(900, 3, dtype=torch.bool)
    model = fitted(BOOSTED, where, rows[:600])
    before = fitted(ColumnBoosted(rounds=1, shrinkage=1e-6), where, rows[:600])
    gain = model(cells[600:], known[600:]).mean(0) - before(cells[600:], known[600:]).mean(0)
    assert float(gain[1]) > 0.3 and float(gain[2]) > 0.3


@pytest.mark.parametrize("kind", ["boosted", "transformer"])
def test_cells_keep_the_contract_of_a_strategy(kind, request):
    conditions = [given(None, None, None), given(1, None, None), given(None, 0, 1)]
    condition = {name: torch.cat([each[name] for each in conditions]) for name in ("cells", "given")}
    check_strategy(Cells(particles=20), {"model": request.getfixturevalue(kind)}, BINARY, condition)
