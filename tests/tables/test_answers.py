"""What a predictor of tables answers: classes, numbers, and several numbers by name."""

import csv

import pytest
import torch

import sanbu
from sanbu.codecs.features import Features
from sanbu.codecs.tables import TableCodec
from sanbu.objectives.supervised import CrossEntropy, Gaussian, Quantile, Squared
from tests.tables.common import names, number
from tests.tables.test_runs import line

NUMBER = Features((number("a", 0, 1), number("b", 0, 1)), "b")
CLASS = Features((number("a", 0, 1), names("b", "no", "yes")), "b")


def answer(features, objective, *outputs):
    return TableCodec(features).reading(objective.read).read(torch.tensor(outputs))


def test_every_level_of_a_quantile_run_is_in_its_answer():
    """The middle one first, by its level and not by its place."""
    assert answer(NUMBER, Quantile(levels=(0.05, 0.95)), 1.0, 9.0) == {"5%": 1.0, "95%": 9.0}
    found = answer(NUMBER, Quantile(levels=(0.1, 0.2, 0.5, 0.9)), 1.0, 2.0, 5.0, 9.0)
    assert found == {"50%": 5.0, "10%": 1.0, "20%": 2.0, "90%": 9.0} and next(iter(found)) == "50%"
    assert answer(NUMBER, Quantile(levels=(0.5,)), 3.0) == 3.0


def test_other_answers():
    assert answer(NUMBER, Squared(), 3.0) == 3.0
    assert answer(NUMBER, Gaussian(), 3.0, 0.0) == {"mean": 3.0, "deviation": 1.0}
    assert answer(CLASS, CrossEntropy(), 0.1, 0.3) == "yes"
    assert TableCodec(NUMBER).read(torch.zeros(0)) is None and TableCodec(NUMBER).read(torch.tensor([2.0])) == 2.0
    codec = TableCodec(NUMBER)
    assert codec.is_row({"a": 1.0, "b": 2.0}) and not codec.is_row({"5%": 1.0, "95%": 2.0}) and not codec.is_row(3.0)
    assert codec.together([{"5%": 1.0, "95%": 2.25}] * 2) == "5%=1, 95%=2.25\n5%=1, 95%=2.25"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = sanbu.recipes.regress(model="linear", levels="0.1,0.9")
    return sanbu.train(recipe, tmp_path_factory.mktemp("quantiles") / "run", watchers=[], steps=20)


def test_a_quantile_run_answers_with_its_interval(run, tmp_path):
    found = run.generate({"bmi": 0.05})
    assert list(found) == ["10%", "90%"]
    shown = line("generate", run.folder, "--where", "bmi=0.05", "-n", 2).splitlines()
    assert shown == [f"10%={found['10%']:.6g}, 90%={found['90%']:.6g}"] * 2
    line("generate", run.folder, "--where", "bmi=0.05", "-n", 2, "--out", tmp_path / "found.csv")
    written = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert len(written) == 2 and {f"{run.codec.features.target} {level}" for level in found} == set(written[0])
    assert float(written[0][f"{run.codec.features.target} 90%"]) == pytest.approx(found["90%"])
