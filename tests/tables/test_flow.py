"""Flows over rows of tables: the code of a row and back, the strategy, and runs of trees and of a perceptron."""

import csv
import json

import numpy as np
import pytest
import torch
from scipy.stats import chi2, ks_2samp, kstest

import sanbu
from sanbu.cli.main import VERBS
from sanbu.codecs.row_code import RowCode, fit_code
from sanbu.config import ConfigError, SanbuError
from sanbu.data.encoded_tables import EncodedTable
from sanbu.data.tables import Table
from sanbu.models.denoisers.denoiser import Denoiser
from sanbu.models.denoisers.trees import TreeDenoiser
from sanbu.space import Space
from sanbu.strategies.row_refinement import RowRefinement
from sanbu.strategies.strategy import draw
from sanbu.testing import check_strategy
from tests.tables.common import names, number
from tests.tables.test_runs import line

NAN = float("nan")


def draws(rows, columns, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((rows, columns)))


def coded(columns, cells, label=-1):
    knots, shares = fit_code(tuple(columns), label, torch.as_tensor(cells, dtype=torch.float64))
    return RowCode(tuple(columns), knots, label, shares)


def mixed(rows=400, seed=0):
    """A number without grid, one with 90 % zeros, integers that may be missing, names that may be missing, a label."""
    draw = np.random.default_rng(seed)
    plain = draw.normal(size=rows)
    spiked = np.where(draw.random(rows) < 0.9, 0.0, draw.integers(1, 5000, rows) / 100)
    whole = np.where(draw.random(rows) < 0.2, NAN, draw.integers(0, 30, rows))
    named = np.where(draw.random(rows) < 0.1, NAN, draw.integers(0, 3, rows))
    label = draw.integers(0, 2, rows).astype(float)
    columns = (
        number("plain", plain.min(), plain.max()), number("spiked", 0.0, 50.0, decimals=2, spikes=(0.0,)),
        number("whole", 0.0, 29.0, decimals=0, missing=True), names("named", "a", "b", "c", missing=True),
        names("label", "no", "yes"),
    )  # fmt: skip
    return columns, np.stack((plain, spiked, whole, named, label), 1)


@pytest.mark.parametrize("label", [4, -1])
def test_every_cell_comes_back(label):
    columns, cells = mixed()
    code = coded(columns, cells, label)
    assert code.width == 1 + 1 + 2 + 4 + (2 if label < 0 else 0)
    rows = torch.from_numpy(cells)
    for seed in range(5):
        x_BF = code.encode(rows, draws(*rows.shape, seed))
        back = code.decode(x_BF, code.labels(rows))
        assert back[:, 1:].nan_to_num(nan=-1.0).equal(rows[:, 1:].nan_to_num(nan=-1.0))
        assert (back[:, 0] - rows[:, 0]).abs().max() < 1e-4
    present = code.decode(x_BF, code.labels(rows), missing=False)
    assert not present.isnan().any()
    known = ~rows.isnan()
    assert present[:, 1:][known[:, 1:]].equal(rows[:, 1:][known[:, 1:]])


def test_the_code_of_a_column_is_standard_normal_for_each_label():
    """KS at 1 %: with 200 rows of a label it finds a shift of 0.3 deviations in 95 of 100 tables."""
    columns, cells = mixed()
    cells[:, 0] += 3 * cells[:, 4]  # the labels differ
    code = coded(columns, cells, 4)
    x_BF = code.encode(torch.from_numpy(cells), draws(*cells.shape))
    there = ~np.isnan(cells[:, 2])
    for label in (0, 1):
        own = cells[:, 4] == label
        for place, chosen in ((0, own), (1, own), (2, own & there)):
            assert kstest(x_BF[:, place].numpy()[chosen], "norm").pvalue > 0.01
    alone = coded(columns, cells)
    assert kstest(alone.encode(torch.from_numpy(cells), draws(*cells.shape))[:, 0].numpy()[own], "norm").pvalue < 1e-9


def test_a_value_of_much_mass_fills_an_interval_and_nothing_else():
    columns, cells = mixed()
    code = coded(columns, cells)
    x_BF = code.encode(torch.from_numpy(cells), draws(*cells.shape))
    chance = torch.special.ndtr(x_BF[:, 1].double()).numpy()
    zero, share = cells[:, 1] == 0, float((cells[:, 1] == 0).mean())
    assert chance[zero].max() < share + 1e-6 < chance[~zero].min() + 2e-6
    assert kstest(chance[zero] / share, "uniform").pvalue > 0.01
    even = torch.arange(100, dtype=torch.float64)[:, None] // 20
    code = coded((number("a", 0, 4, decimals=0),), even)
    for ends, shift in ((0.0, 0.0), (1.0, 0.2)):
        x_BF = code.encode(even, torch.full_like(even, ends))
        assert torch.allclose(torch.special.ndtr(x_BF.double()), even / 5 + shift, atol=1e-3)
    code = coded(columns, cells)
    assert code.decode(torch.full((1, code.width), -5.0), torch.zeros(1, dtype=torch.long))[0, 1] == 0


def test_decoded_numbers_stay_within_the_range_of_their_label():
    columns, cells = mixed()
    cells[:, 0] += 10 * cells[:, 4]
    columns = (number("plain", cells[:, 0].min(), cells[:, 0].max()), *columns[1:])
    code = coded(columns, cells, 4)
    x_BF = 20 * draws(300, code.width).float() - 10
    label_B = torch.arange(300) % 2
    found = code.decode(x_BF, label_B).numpy()
    for label in (0, 1):
        own, drawn = cells[cells[:, 4] == label, 0], found[label_B.numpy() == label, 0]
        assert own.min() <= drawn.min() < own.min() + 1 and own.max() - 1 < drawn.max() <= own.max()
    beyond = torch.tensor([[1e6, 77.0, 99.0, 0.0, 1.0]], dtype=torch.float64)
    kept = code.decode(code.encode(beyond, draws(1, 5)), torch.ones(1, dtype=torch.long))
    assert kept[0, 1] <= 50 and kept[0, 2] == 29


def test_a_name_is_one_number_of_1_among_numbers_of_minus_1():
    code = coded((names("a", "x", "y", missing=True), names("b", "only")), [[0, 0], [1, 0], [NAN, 0]])
    x_BF = code.encode(torch.tensor([[0, 0], [1, 0], [NAN, 0]], dtype=torch.float64), draws(3, 2))
    assert x_BF.tolist() == [[1, -1, -1, 1], [-1, 1, -1, 1], [-1, -1, 1, 1]]
    assert code.gaps().tolist() == [False, False, True, False]
    scores = torch.tensor([[-0.2, -0.1, -0.3, -5.0]])
    assert code.decode(scores, torch.zeros(1, dtype=torch.long)).tolist() == [[1.0, 0.0]]


def test_few_rows_constants_and_empty_columns_have_a_code():
    columns = (number("constant", 4, 4, decimals=0), number("empty", 0, 0, missing=True), names("label", "no", "yes"))
    cells = torch.tensor([[4, NAN, 0], [4, NAN, 1], [4, NAN, 0]], dtype=torch.float64)
    code = coded(columns, cells, 2)
    back = code.decode(code.encode(cells, draws(3, 3)), code.labels(cells))
    assert torch.equal(back.nan_to_num(nan=-1.0), cells.nan_to_num(nan=-1.0))
    assert code.knots[0].values[0] == code.knots[0].values[1]  # a label of few rows has the quantiles of all


def test_labels_are_drawn_by_their_shares():
    columns = (number("a", 0, 1), names("label", "x", "y", "z"))
    code = RowCode(columns, (), 1, (0.2, 0.5, 0.3))
    found = torch.bincount(code.draw_labels(draws(3000, 1)[:, 0]), minlength=3).double()
    expected = 3000 * torch.tensor([0.2, 0.5, 0.3])
    assert chi2.sf(float(((found - expected) ** 2 / expected).sum()), 2) > 0.01
    assert code.draw_labels(torch.tensor([0.19, 0.21, 0.69, 0.71, 1 - 1e-16])).tolist() == [0, 1, 1, 2, 2]


# -- the strategy -----------------------------------------------------------------------------------------------------


class Normal(torch.nn.Module):
    """The velocity of codes with mean 0 and covariance R, exact: E[e - x | x_t] for x_t = (1 - t) x + t e."""

    def __init__(self, covariance):
        super().__init__()
        self.register_buffer("covariance", covariance)

    def forward(self, x, clock_B, label_B):
        t = clock_B[:, None, None] / 1000
        eye = torch.eye(x.shape[1])
        whole = (1 - t) ** 2 * self.covariance + t**2 * eye
        gain = (t * eye - (1 - t) * self.covariance) @ torch.linalg.inv(whole)
        return (gain @ x[:, :, None])[:, :, 0]


def normal_flow(correlation=0.8, **fields):
    """Two numbers with standard normal codes."""
    cells = np.random.default_rng(0).normal(size=(2000, 2))
    columns = tuple(number(name, cells[:, i].min(), cells[:, i].max()) for i, name in enumerate("ab"))
    code = coded(columns, cells)
    space = Space((2,), columns=columns, code=code)
    model = Denoiser(Normal(torch.tensor([[1.0, correlation], [correlation, 1.0]])), TreeDenoiser())
    strategy = RowRefinement(**fields).build(space)
    strategy.rows = cells[:, 0]
    return strategy, {"model": model}


def test_drawn_rows_have_the_law_of_the_flow():
    """A correlation of 0.8 has the error 0.36 / sqrt(4000) = 0.006."""
    strategy, models = normal_flow(steps=40)
    sample = draw(strategy, models, {}, torch.arange(4000)).sample
    assert sample.dtype == torch.float64
    assert abs(float(torch.corrcoef(sample.T)[0, 1]) - 0.8) < 0.03
    assert ks_2samp(sample[:, 0].numpy(), strategy.rows).pvalue > 0.01


def test_given_cells_come_back_bit_for_bit_and_decide_the_others():
    strategy, models = normal_flow(0.95, steps=50)
    value = 1.234567890123456
    cells = torch.tensor([[value, NAN]] * 500, dtype=torch.float64)
    condition = {"cells": cells, "given": ~cells.isnan()}
    found = draw(strategy, models, condition, torch.arange(500))
    assert (found.sample[:, 0] == value).all() and found.committed.all()
    assert abs(float(found.sample[:, 1].mean()) - 0.95 * value) < 0.08
    assert 0.28 < float(found.sample[:, 1].std()) < 0.42  # sqrt(1 - 0.95^2) = 0.31; without repeats 0.60
    alone = draw(strategy, models, {name: tensor[7:8] for name, tensor in condition.items()}, torch.tensor([7]))
    assert torch.allclose(alone.sample, found.sample[7:8], atol=1e-5)


def test_what_may_not_be_missing_is_told_to_the_flow():
    columns, cells = mixed()
    code = coded(columns, cells, 4)
    space, rows = Space((code.width,), columns=columns, code=code), torch.from_numpy(cells[:3])
    given = torch.zeros(3, 5, dtype=torch.bool)
    assert RowRefinement().build(space).known(rows, given, draws(3, 5)) == {}
    found = RowRefinement(missing="never").build(space).known(rows, given, draws(3, 5))
    assert found["mask"].equal(code.gaps().expand(3, -1)) and (found["known"][:, code.gaps()] == -1).all()
    given[:, 2] = True
    assert RowRefinement().build(space).known(rows, given, draws(3, 5))["mask"].sum(1).tolist() == [2, 2, 2]


@pytest.mark.parametrize("sampler", ["heun", "dpm-solver", "ancestral"])
def test_rows_keep_the_contract_of_a_strategy(sampler):
    """Also a row without given cells among rows that have some, and rows with and without their label."""
    columns, cells = mixed()
    columns, cells = (columns[0], columns[1], columns[4]), cells[:, [0, 1, 4]]  # NaN is not equal to itself
    code = coded(columns, cells, 2)
    space = Space((2,), classes=2, columns=columns, target=2, code=code)
    model = Denoiser(Normal(torch.tensor([[1.0, 0.7], [0.7, 1.0]])), TreeDenoiser())
    given = torch.tensor([[False] * 3, [True, False, True], [False, False, True], [True] * 3])
    condition = {"cells": torch.from_numpy(cells[:4]), "given": given}
    for missing in ("drawn", "never"):
        check_strategy(RowRefinement(steps=4, sampler=sampler, missing=missing), {"model": model}, space, condition)


# -- runs -------------------------------------------------------------------------------------------------------------


def crossed(rows=600):
    """Two numbers whose correlation is 0.8 for one label and -0.8 for the other, some holes, and a name."""
    draw = np.random.default_rng(0)
    label = draw.random(rows) < 0.7
    first = draw.normal(size=rows)
    second = np.where(label, 0.8, -0.8) * first + 0.6 * draw.normal(size=rows)
    sign = np.where(draw.random(rows) < 0.1, "", np.where(first > 0, "plus", "minus"))
    return {
        "first": np.round(np.exp(first), 2), "second": np.round(second, 3), "sign": sign.astype(object),
        "label": np.where(label, "yes", "no").astype(object),
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    recipe = sanbu.recipes.table_flow().change(data=EncodedTable(rows=sanbu.data.table(crossed(), target="label")))
    return sanbu.train(recipe.change("schedule.batch=4000", "schedule.steps=6"), folder / "run", watchers=[])


def correlations(rows):
    """Of the ranks of the two numbers, for each label."""
    found = {}
    for label in ("yes", "no"):
        pairs = np.array([(row["first"], row["second"]) for row in rows if row["label"] == label])
        found[label] = float(np.corrcoef(pairs.argsort(0).argsort(0).T)[0, 1])
    return found


def test_a_tree_flow_draws_rows_like_those_of_the_table(run):
    rows = run.generate(n=1000)
    found = correlations(rows)
    assert 0.65 < found["yes"] < 0.9 and -0.9 < found["no"] < -0.65
    assert 0.64 < sum(row["label"] == "yes" for row in rows) / 1000 < 0.76
    signs = [(row["sign"], row["first"]) for row in rows]
    right = [(sign == "plus") == (first > 1) for sign, first in signs if sign is not None]
    assert np.mean(right) > 0.75 and 0.04 < 1 - len(right) / 1000 < 0.16
    assert all(row["first"] == round(row["first"], 2) for row in rows)
    assert run.generate(n=4, seed=3)[2] == run.generate(seed=5)


def test_the_label_is_given_or_refused(run):
    rows = run.generate({"label": "no", "first": 2.71}, n=50)
    assert all(row["label"] == "no" and row["first"] == 2.71 for row in rows)
    with pytest.raises(SanbuError, match="label: this flow draws it before all other columns"):
        run.generate({"first": 2.71})


def test_holes_are_filled_and_figures_are_made(run, tmp_path):
    assert VERBS
    holes, out = tmp_path / "holes.csv", tmp_path / "filled.csv"
    holes.write_text("first,second,sign,label\n" + 20 * "2.71,,,yes\n,-1.5,plus,no\n")
    line("impute", run.folder, holes, "--out", out)
    found = list(csv.DictReader(out.open()))
    assert len(found) == 40 and all(row["sign"] for row in found)
    assert all(row["first"] == "2.71" for row in found[::2]) and all(row["second"] == "-1.5" for row in found[1::2])
    assert np.mean([float(row["second"]) for row in found[::2]]) > 0.3
    figures = json.loads(line("evaluate", run.folder, "--json").splitlines()[-1])
    assert {"held_out_error", "tstr_f1", "c2st", "w_test", "copies"} <= set(figures) and figures["copies"] < 0.05


def test_a_perceptron_learns_the_same_table(tmp_path):
    data = EncodedTable(rows=sanbu.data.table(crossed(), target="none"))
    recipe = sanbu.recipes.table_flow(model="perceptron").change("schedule.steps=100", data=data)
    run = sanbu.train(recipe, tmp_path / "run", watchers=[])
    found = correlations(run.generate(n=800))  # the label is a column of the flow: any cells may be given
    assert found["yes"] > 0.3 and found["no"] < -0.3
    rows = run.generate({"first": 0.3}, n=50)
    assert {row["label"] for row in rows} == {"yes", "no"} and all(row["first"] == 0.3 for row in rows)


def test_rows_are_a_function_of_their_position():
    data = EncodedTable(rows=Table(path="iris")).build()
    whole, part = data.batch(0, 300), data.batch(100, 50)
    assert all(tensor.equal(whole[name][100:150]) for name, tensor in part.items())
    again = torch.nonzero(whole["row"] == whole["row"][0])[:, 0]
    assert len(again) > 1 and len({tuple(row) for row in whole["image"][again].tolist()}) == len(again)
    assert data.held_out(5, 3)["image"].equal(data.held_out(0, 20)["image"][5:8])
    example = data.config.example(4)
    assert {name: (t.shape[1:], t.dtype) for name, t in example.items()} == {
        name: (t.shape[1:], t.dtype) for name, t in whole.items()
    }


BAD = {
    "strategy": (lambda: sanbu.recipes.table_flow().change("strategy=refinement"), "set strategy=row-refinement"),
    "data": (lambda: sanbu.recipes.flow().change("strategy=row-refinement"), "set data=encoded-table"),
    "network": (lambda: sanbu.recipes.table_flow().change("model=unet"), "set data=images"),
    "model": (lambda: sanbu.recipes.table_flow(model="tree"), "did you mean 'trees'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_line(name):
    make, expected = BAD[name]
    with pytest.raises(ConfigError, match=expected) as error:
        make()
    assert "\n" not in str(error.value)
