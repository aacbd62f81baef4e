"""Runs of tables as a user makes them: train, generate, impute, predict, evaluate, compare."""

import csv
import json

import pytest
from typer.testing import CliRunner

import sanbu
from sanbu.cli.app import app
from sanbu.cli.main import VERBS
from sanbu.config import SanbuError
from sanbu.evaluation.figures import Entry
from sanbu.evaluation.tables import judge
from sanbu.recipes import contests
from sanbu.recipes import tables as recipes
from sanbu.recipes.contests import tables as contest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table") / "run"
    return sanbu.train(sanbu.recipes.table(path="iris"), folder, watchers=[])


def line(*arguments):
    assert VERBS
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_rows_are_the_same_alone_and_among_others(run):
    rows = run.generate(n=8, seed=3)
    assert rows[5] == run.generate(seed=8) and len({row["petal length"] for row in rows}) > 2
    assert sanbu.load(run.folder).generate(n=8, seed=3) == rows


def test_given_cells_are_in_every_row(run):
    rows = run.generate({"species": "virginica", "petal width": 2.0}, n=20)
    assert all(row["species"] == "virginica" and row["petal width"] == 2.0 for row in rows)
    assert min(row["petal length"] for row in rows) > 3
    species = [row["species"] for row in run.generate({"petal length": 1.4}, n=50)]
    assert species.count("setosa") > 44
    assert [row["species"] for row in run.generate([{"petal length": 1.4}, {"petal length": 6.0}])] == [
        "setosa", "virginica",
    ]  # fmt: skip


def test_generate_writes_a_file_that_can_be_trained_on(run, tmp_path):
    out = tmp_path / "synthetic.csv"
    about = json.loads(line("generate", run.folder, "-n", 200, "--out", out, "--where", "species=setosa", "--json"))
    assert about["overview"] == str(out) and about["samples"] == 200
    data = sanbu.data.tables.Table(path=str(out), target="none").build()
    assert data.rows + data.held_out_rows == 200
    assert data.features.columns[-1].names == ("setosa",)
    assert len(line("generate", run.folder, "-n", 3).splitlines()) == 5  # headings of two lines


def test_impute_fills_holes_and_nothing_else(run, tmp_path):
    holes, out = tmp_path / "holes.csv", tmp_path / "filled.tsv"
    lines = [["petal length", "note", "species"], ["1.40", "a", ""], ["", "b", "virginica"], ["5.1", "", "martian"]]
    with holes.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    about = json.loads(line("impute", run.folder, holes, "--out", out, "--draws", 3, "--json"))
    assert about["filled"] == 2 + 3 * 3 and about["rows"] == 3
    found = list(csv.reader(out.open(), delimiter="\t"))
    assert found[0] == ["draw", *lines[0], "sepal length", "sepal width", "petal width"]
    assert len(found) == 10 and [row[0] for row in found[1:]] == list("111222333")
    for row, given in zip(found[1:], lines[1:] * 3, strict=True):
        assert all(cell == text for cell, text in zip(row[1:4], given, strict=True) if text)
        assert all(row[place] for place in (1, 3, 4, 5, 6))
    assert {found[place][3] for place in (1, 4, 7)} == {"setosa"}
    assert found[1][4:] != found[4][4:] or found[4][4:] != found[7][4:]
    assert sanbu.load(run.folder).generate({"petal length": 1.4}, overrides=["strategy.missing=never"])


def test_predict_gives_each_class_a_probability(run, tmp_path):
    rows, out = tmp_path / "rows.csv", tmp_path / "predictions.csv"
    rows.write_text("petal length,petal width\n1.4,0.2\n6.0,2.3\n")
    line("predict", run.folder, rows, "--out", out)
    found = list(csv.DictReader(out.open()))
    assert [row["predicted species"] for row in found] == ["setosa", "virginica"]
    for row in found:
        assert sum(float(row[f"p({name})"]) for name in ("setosa", "versicolor", "virginica")) == pytest.approx(1)
    classifier = sanbu.train(sanbu.recipes.classify(model="linear"), tmp_path / "linear", watchers=[], steps=50)
    line("predict", classifier.folder, rows, "--out", out)
    assert [row["predicted species"] for row in csv.DictReader(out.open())] == ["setosa", "virginica"]


BAD = {
    "no table": (lambda run: ("impute", run.folder, "nothing.csv"), "there is no file 'nothing.csv'"),
    "column": (lambda run: ("generate", run.folder, "--where", "specie=setosa"), "did you mean 'species'"),
    "value": (lambda run: ("generate", run.folder, "--where", "species=setos"), "did you mean 'setosa'"),
    "format": (lambda run: ("impute", run.folder, "iris", "--out", "x.xlsx"), "ends with .csv or .tsv"),
    "none of the columns": (lambda run: ("predict", run.folder, "wine"), "wine has none of the columns"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_of_a_verb_is_one_line(name, run):
    arguments, expected = BAD[name]
    result = CliRunner().invoke(app, [str(each) for each in arguments(run)])
    assert isinstance(result.exception, SanbuError) and expected in str(result.exception)
    assert "\n" not in str(result.exception)


def test_evaluate_tells_the_ceiling_and_that_nothing_is_guaranteed(run):
    found = json.loads(line("evaluate", run.folder, "--json").splitlines()[-1])
    wanted = {"tstr_f1", "tstr_auc", "real_tstr_f1", "c2st", "c2st_rows", "w_test", "copies", "nats_per_row"}
    assert wanted <= set(found)
    assert found["privacy"] == "not a privacy guarantee" and found["tstr_f1"] > 0.85


def test_compare_tables(tmp_path):
    settings = ("path=iris", "only=column-forest,copula")
    report = contests.compete("tables", Entry(tmp_path, settings=settings))
    content = report.write(tmp_path)
    rows = {row["name"]: row for row in content["rows"]}
    wanted = {"tstr_f1", "tstr_auc", "c2st", "w_test", "copies", "fit_s", "draw_s"}
    assert list(rows)[3:] == ["copula", "column-forest"]
    assert wanted <= set(rows["copula"]) and wanted <= set(rows["column-forest"])
    assert rows["column-forest"]["tstr_f1"] > rows["copula"]["tstr_f1"] - 0.1
    page = (tmp_path / "compare.html").read_text()
    assert "not a privacy guarantee" in page and "data:image/png" in page
    assert content["curves"][0]["lines"].keys() >= {"held-out rows", "copula", "column-forest"}


GENERATORS = ("copula", "column-forest", "column-boosted", "column-transformer", "tree-flow", "neural-flow")


def test_compare_tables_trains_every_generator_once(tmp_path, monkeypatch):
    """With two steps each, and without the classifiers, which the test above trains."""
    full = recipes.generators

    def short(data):
        shorter = ["schedule.steps=2", "schedule.evaluate_every=2"]
        return {name: each.change(*shorter[: 2 * (each.schedule.steps > 1)]) for name, each in full(data).items()}

    monkeypatch.setattr(recipes, "generators", short)
    monkeypatch.setattr(judge, "utility", lambda *arguments: {"f1": 0.5, "auc": 0.5})
    monkeypatch.setattr(judge, "two_sample", lambda *arguments: (0.5, 10))
    first = contests.compete("tables", Entry(tmp_path, settings=("path=iris",)))
    assert tuple(row["name"] for row in first.rows[3:]) == GENERATORS
    assert all(0 < row["w_test"] < 3 and row["fit_s"] > 0 for row in first.rows[3:])
    monkeypatch.setattr(contest, "train", lambda *arguments, **more: pytest.fail("trained again"))
    again = contests.compete("tables", Entry(tmp_path, settings=("path=iris",)))
    assert [row["w_test"] for row in again.rows] == [row["w_test"] for row in first.rows]
    with pytest.raises(SanbuError, match="was trained with other settings"):
        contests.compete("tables", Entry(tmp_path, settings=("path=wine",)))


@pytest.mark.parametrize(("setting", "expected"), [
    ("paht=iris", "did you mean 'path'"), ("rows=few", "allowed: a whole number"),
    ("only=copula,forest", "did you mean 'column-forest'"),
])  # fmt: skip
def test_a_wrong_setting_of_compare_tables_is_one_line(setting, expected, tmp_path):
    with pytest.raises(SanbuError, match=expected) as error:
        contests.compete("tables", Entry(tmp_path, settings=(setting,)))
    assert "\n" not in str(error.value)
