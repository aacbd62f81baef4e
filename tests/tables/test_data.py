"""Tables: how files are read, types found, rows split and cells converted; bad input in one line."""

import datetime
import json
import math

import numpy as np
import pytest
import torch

import sanbu
from sanbu.codecs.columns import Column, date_of, number_of, write_date
from sanbu.config import SanbuError
from sanbu.data.schema import grid_of
from sanbu.data.tables import Table
from sanbu.recipe import Recipe, Schedule


def write(tmp_path, text, name="table.csv"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def many(tmp_path, header, row, rows=40, name="table.csv"):
    lines = [header, *(row(number) for number in range(rows))]
    return write(tmp_path, "\n".join(lines) + "\n", name)


def built(path, **fields):
    return Table(path=path, **fields).build()


def by_name(data):
    return {column.name: column for column in data.features.columns}


MIXED = "age,city,born,pay,when\n" + "".join(
    f"{20 + number % 17},{('Rome', 'Oslo', 'Bern')[number % 3]},{1600 + number}-03-0{1 + number % 9},"
    f"{'' if number % 5 == 0 else number * 1.25},2024-01-01 10:{number:02d}\n"
    for number in range(50)
)


def test_types_are_found(tmp_path):
    columns = by_name(built(write(tmp_path, MIXED)))
    assert {name: column.type for name, column in columns.items()} == {
        "age": "integer", "city": "category", "born": "date", "pay": "continuous", "when": "date",
    }  # fmt: skip
    assert columns["city"].names == ("Bern", "Oslo", "Rome")
    assert columns["pay"].missing and not columns["age"].missing
    assert columns["pay"].step == 1.25 and columns["when"].step == 60


def test_every_cell_comes_back_as_the_file_has_it(tmp_path):
    """Including dates before 1677, which are beyond the nanoseconds of pandas."""
    data = built(write(tmp_path, MIXED), validation=0)
    shown = sorted(",".join(data.codec.text(data.codec.read(row), c) for c in data.features.columns)
                   for row in data.parts["train"])  # fmt: skip
    written = sorted(f"{a},{b},{c},{float(d):.2f},{e}" if d else f"{a},{b},{c},,{e}"
                     for a, b, c, d, e in (line.split(",") for line in MIXED.splitlines()[1:]))  # fmt: skip
    assert shown == written


def test_types_are_replaced_and_saved_with_the_run(tmp_path):
    path = write(tmp_path, MIXED)
    data = Table(path=path, types={"age": "category", "when": "drop"}).resolve()
    assert [column.name for column in data.columns] == ["age", "city", "born", "pay"]
    assert data.columns[0].type == "category"
    again = Table.model_validate_json(json.dumps(sanbu.config.dump(data)))
    assert again == data and again.resolve() is again


def test_semicolons_and_decimal_commas(tmp_path):
    path = many(tmp_path, "a;b", lambda n: f"{n},5;x{n % 2}")
    column = by_name(built(path, validation=0))["a"]
    assert column.type == "continuous" and (column.low, column.high) == (0.5, 39.5)
    assert column.write(3.5) == "3,5" and column.cell("7,5") == 7.5


def test_tabs_gzip_parquet_json_and_memory_agree(tmp_path):
    import gzip

    rows = [{"a": n / 4, "b": "xyz"[n % 3], "c": None if n % 7 == 0 else n} for n in range(60)]
    text = "a\tb\tc\n" + "".join(f"{r['a']:g}\t{r['b']}\t{'' if r['c'] is None else r['c']}\n" for r in rows)
    columns = {name: [row[name] for row in rows] for name in "abc"}
    found = [
        built(write(tmp_path, text, "table.tsv")),
        built(write(tmp_path, gzip.compress(text.replace("\t", ",").encode()), "table.csv.gz")),
        built(write(tmp_path, json.dumps(rows), "table.json")),
        sanbu.data.table(columns).build(),
        sanbu.data.table({name: np.array(column, dtype=object) for name, column in columns.items()}).build(),
    ]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows)
    frame.to_parquet(tmp_path / "table.parquet")
    found += [sanbu.data.table(frame).build(), built(str(tmp_path / "table.parquet"))]
    first = found[0]
    for other in found[1:]:
        assert other.features.columns == first.features.columns
        torch.testing.assert_close(other.parts["train"], first.parts["train"], rtol=0, atol=0, equal_nan=True)


def test_equal_rows_fall_on_one_side(tmp_path):
    path = many(tmp_path, "a,b", lambda n: f"{n % 25},{n % 5}", rows=200)
    data = built(path, validation=0.3)
    sides = [{tuple(row) for row in data.parts[part].tolist()} for part in ("train", "held_out")]
    assert not sides[0] & sides[1] and all(sides)
    assert len(data.parts["train"]) + len(data.parts["held_out"]) == 200
    assert not data.parts["train"].equal(built(path, validation=0.3, split=1).parts["train"])


def test_a_part_of_the_training_rows(tmp_path):
    path = many(tmp_path, "a,b", lambda n: f"{n},{n * n % 7}", rows=200)
    whole, part = built(path), built(path, rows=50)
    assert part.rows == 50 and part.held_out_rows == whole.held_out_rows


def test_spikes_have_a_probability_of_their_own(tmp_path):
    path = many(tmp_path, "gain,other", lambda n: f"{0 if n % 10 else n + 1},{n / 3:.4f}", rows=300)
    column = by_name(built(path, validation=0))["gain"]
    assert column.spikes == (0.0,) and column.levels == 1 and column.describe().startswith("mixed integer")


def test_features_and_targets(tmp_path):
    path = many(tmp_path, "n,c,y", lambda n: f"{'' if n == 3 else n},{'abc'[n % 3]},{'no' if n % 2 else 'yes'}")
    data = built(path, target="y", validation=0)
    assert data.features.titles == ["n", "c=a", "c=b", "c=c"] and data.features.classes == 2
    batch = data.batch(0, 40)
    order = batch["row"].argsort()
    x, y, cells = (batch[name][order] for name in ("x", "y", "cells"))
    numbers = np.array([n for n in range(40) if n != 3], dtype=float)
    expected = (np.arange(40) - numbers.mean()) / numbers.std()
    assert math.isnan(x[3, 0]) and np.allclose(np.delete(x[:, 0].numpy(), 3), np.delete(expected, 3), atol=1e-6)
    assert x[:, 1:].argmax(1).equal(torch.arange(40) % 3) and x[:, 1:].sum(1).equal(torch.ones(40))
    assert y.equal((torch.arange(40) % 2 == 0).long()) and y.equal(cells[:, 2].long())
    flagged = built(path, target="y", validation=0, gaps="flag", names="codes")
    assert flagged.features.titles == ["n", "n missing", "c"]
    assert flagged.batch(0, 40)["x"].isfinite().all() and flagged.batch(0, 40)["x"][:, 1].sum() == 1
    assert Table(path=path, target="y").space().classes == 2


def test_a_target_of_few_whole_numbers_is_a_class(tmp_path):
    path = many(tmp_path, "a,y", lambda n: f"{n},{n % 2}")
    assert built(path, target="y").features.classes == 2
    assert built(path, target="y", types={"y": "integer"}).features.classes == 0
    assert built(path, target="a").features.classes == 0 and built(path).config.target == ""


def test_categories_unseen_in_training_are_missing(tmp_path):
    path = many(tmp_path, "a,b,y", lambda n: f"{n % 20},{'rare' if n == 5 else 'xy'[n % 2]},{n % 2}", rows=80)
    for split in range(40):
        data = built(path, split=split, target="y")
        if "rare" not in by_name(data)["b"].names:
            break
    held_out = data.parts["held_out"][:, 1]
    assert int(held_out.isnan().sum()) == 1 and data.held_out(0, 80)["x"][:, 1:3].sum(1).min() == 0
    with pytest.raises(SanbuError, match=r"b: given 'rare', allowed: x, y"):
        data.codec.condition({"b": "rare"}, 1)


def test_dates_before_1677_and_beyond_the_calendar():
    days = (datetime.date(1492, 10, 12) - datetime.date(1970, 1, 1)).days
    assert date_of("1492-10-12", "%Y-%m-%d") == days and write_date(days, "%Y-%m-%d") == "1492-10-12"
    assert write_date(-1e9, "%Y-%m-%d") == "0001-01-01" and write_date(1e9, "%Y-%m-%d") == "9999-12-31"
    assert write_date(date_of("0007-02-03T04:05:06", "%Y-%m-%dT%H:%M:%S"), "%Y-%m-%dT%H:%M:%S") == "0007-02-03T04:05:06"


def test_rounding_to_the_grid_of_a_column():
    column = Column(name="a", type="continuous", low=0.4, high=10.0, decimals=1, unit=3)
    assert column.round(np.array([0.4, 0.54, 0.56, 2.1, 7.13])).tolist() == [0.4, 0.4, 0.7, 2.2, 7.0]
    assert Column(name="a", type="continuous").round(np.array([0.1234567])).tolist() == [0.1234567]


def test_codes_with_leading_zeros_are_names():
    assert number_of("02134") is None and number_of("0.5") == 0.5 and number_of("-0") == 0


def test_numbers_beyond_exact_integers_have_no_grid():
    assert grid_of(np.array([1e25, 3e25, 7.5e25])) == (None, 1)
    assert grid_of(np.array([0.25, 1.5])) == (2, 1)


BAD = {
    "three rows": ("a,b\n1,2\n3,4\n5,6\n", {}, r"rows for training, allowed: at least 10"),
    "ragged": ("a,b\n1,2\n3\n" * 20, {}, r"line 3: 1 cells, but there are 2 columns"),
    "names twice": ("a,a\n1,2\n" * 20, {}, r"two columns are called 'a'"),
    "no name": ("a,\n1,2\n" * 20, {}, r"column 2 has no name"),
    "no names": ("1,2\n3,4\n" * 20, {}, r"line 1: numbers where the names of the columns should be"),
    "encoding": ("a,b\n1,caf\xe9\n".encode("latin-1") * 20, {}, r"is not UTF-8 text: byte 9 is 0xe9"),
    "no target": ("age,b\n" + "1,2\n" * 20, {"target": "aeg"}, r"no column 'aeg'; columns: age, b; did you mean 'age'"),
    "no type": ("age,b\n" + "1,2\n" * 20, {"types": {"agee": "drop"}}, r"did you mean 'age'"),
    "mixed types": (
        "age,b\n" + "".join(f"{n},1\n" for n in range(40)) + "old,1\n", {},
        r"line 42: 'age' has 'old', which is not a number, as the others are; correct the cell, or types=",
    ),
    "huge": ("a,b\n" + "".join(f"{n},1\n" for n in range(40)) + "1e300,1\n", {}, r"line 42: 'a' has 1e\+300, allowed"),
    "names of rows": (
        "a,b\n" + "".join(f"person {n},1\n" for n in range(10_000)), {}, r"'a' has [\d,]+ different texts",
    ),
    "empty": ("a,b\n", {}, r"there are no rows"),
    "only column": ("a,b\n" + "1,2\n" * 20, {"types": {"a": "drop"}}, r"1 column is left"),
    "target dropped": ("a,b\n" + "1,2\n" * 20, {"types": {"a": "drop"}, "target": "a"}, r"cannot be dropped"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, tmp_path):
    text, fields, expected = BAD[name]
    with pytest.raises(SanbuError, match=expected) as found:
        built(write(tmp_path, text), **fields)
    assert "\n" not in str(found.value)


def test_constant_and_empty_columns_are_read_and_told(tmp_path):
    data = built(many(tmp_path, "a,same,none,name", lambda n: f"{n},7,,x"))
    assert data.remarks == [
        "'none' has no cell that is not missing", "'same' has the same value in every row",
        "'name' has the same value in every row",
    ]  # fmt: skip
    row = data.codec.read(data.parts["train"][0])
    assert (row["same"], row["none"], row["name"]) == (7, None, "x")


def test_rows_without_a_target_are_left_out(tmp_path):
    data = built(many(tmp_path, "a,y", lambda n: f"{n},{'' if n < 4 else n % 2}"), target="y")
    assert data.rows + data.held_out_rows == 36 and "4 rows without a target left out" in data.remarks


def test_conditions_are_written_as_text_or_given_as_a_dictionary(tmp_path):
    codec = built(write(tmp_path, MIXED)).codec
    given = codec.request('city="Rome", age=30', None)
    assert given == {"city": "Rome", "age": "30"} or given == {"city": '"Rome"', "age": "30"}
    batch = codec.condition({"city": "Rome", "age": 30, "born": "1601-03-02"}, 2)
    assert batch["given"].tolist() == [[True, True, True, False, False]] * 2
    assert batch["cells"][0, :2].tolist() == [30.0, 2.0]
    for prompt, expected in {
        "aeg=3": "did you mean 'age'", "age": "column=value is needed", "age=x": "a number is needed",
        "age=30.5": "a whole number is needed", "born=1.2.2000": "a date like %Y-%m-%d", "city=": "no training row",
    }.items():  # fmt: skip
        with pytest.raises(SanbuError, match=expected):
            codec.condition(codec.request(prompt, None), 1)
    assert codec.condition({"pay": None}, 1)["cells"][0, 3].isnan()


def test_a_predictor_learns_from_a_table(tmp_path):
    from sanbu.models.predictors.mlp import MLP
    from sanbu.objectives.supervised import CrossEntropy
    from sanbu.optimizers.gradient import Adam
    from sanbu.strategies.prediction import Prediction

    recipe = Recipe(
        name="species", data=Table(path="iris"), model=MLP(width=16), objective=CrossEntropy(), optimizer=Adam(),
        strategy=Prediction(), schedule=Schedule(steps=120, batch=64, evaluate_every=120, checkpoint_every=0),
    )  # fmt: skip
    run = sanbu.load(sanbu.train(recipe, tmp_path / "run", watchers=[]).folder)
    assert run.metrics()[-1]["held_out/accuracy"] > 0.85
    row = run.recipe.data.build().preview(1)[0]["rows"][0]
    assert run.generate(row) == "setosa" and run.generate([row, row]) == ["setosa", "setosa"]
