"""The view of a run of a table: figures against closed forms, and the page in a real browser."""

import shutil
import threading

import numpy as np
import pytest
import torch

import sanbu
from sanbu.evaluation.tables.associations import associations, cramer, ratio
from tests.serve.conftest import Served
from tests.studio.test_page import go, wait
from tests.tables.common import names, number

gradio = pytest.importorskip("gradio")
from sanbu.studio import tables  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory, runs):
    """A run of a table, and one of text beside it, which is newer."""
    root = tmp_path_factory.mktemp("tables")
    data = sanbu.data.table(
        {"a": np.round(np.random.default_rng(0).normal(size=200), 2), "b$": np.arange(200) % 7, "c": ["x", "y"] * 100},
        target="c",
    )
    sanbu.train(sanbu.recipes.table().change(data=data), root / "rows", watchers=[])
    shutil.copytree(runs[1], root / "words")
    (root / "words" / "recipe.json").touch()
    return root


@pytest.fixture(scope="module")
def studio(runs, folder):
    from sanbu.studio.page import mount

    with Served(runs, before=lambda app, service: mount(app, service, folder)) as one:
        one.root = folder
        yield one


# -- figures ----------------------------------------------------------------------------------------------------------


def test_associations_of_numbers_and_names():
    draw = np.random.default_rng(0)
    x = draw.normal(size=500)
    group = draw.integers(0, 3, 500).astype(float)
    cells = np.stack((x, 2 * x + draw.normal(size=500), group, (group + 1) % 3, np.full(500, 4.0)), 1)
    columns = (number("x", -5, 5), number("y", -9, 9), names("g", *"abc"), names("h", *"abc"), number("k", 4, 4))
    found = associations(columns, cells)
    assert found[0, 1] == pytest.approx(np.corrcoef(x, cells[:, 1])[0, 1]) and (found == found.T).all()
    assert found[2, 3] == pytest.approx(1)  # each name of one is a name of the other
    assert (found[4, :4] == 0).all() and (np.diag(found) == 1).all()
    cells[:100, 1] = np.nan
    assert associations(columns, cells)[0, 1] == pytest.approx(np.corrcoef(x[100:], cells[100:, 1])[0, 1])


def test_the_correlation_ratio_and_cramers_v_by_hand():
    """Means 1 and 3 around 2, deviation 1; all of the numbers deviate by sqrt(2). A table of 3, 1, 1, 3: phi is 1/2."""
    assert ratio(np.array([0, 0, 1, 1]), np.array([0.0, 2, 2, 4])) == pytest.approx(1 / np.sqrt(2))
    x, y = np.repeat([0, 1], 4), np.array([0, 0, 0, 1, 0, 1, 1, 1])
    assert cramer(x, y) == pytest.approx(0.5) and cramer(x, 1 - y) == pytest.approx(0.5)
    assert cramer(x, np.zeros(8)) == 0 and ratio(x.astype(float), np.ones(8)) == 0


def test_shares_and_distribution_functions():
    column = names("a", "x", "y", missing=True)
    assert tables.shares(column, np.array([0.0, 0, 1, np.nan])) == [("x", 0.5), ("y", 0.25), ("missing", 0.25)]
    values, chance = tables.below(np.array([3.0, np.nan, 1.0, 2.0]))
    assert values.tolist() == [1, 2, 3] and np.allclose(chance, [1 / 3, 2 / 3, 1])


def test_a_view_has_held_out_rows_and_rows_of_the_run(folder):
    run = sanbu.load(folder / "rows")
    found = tables.view(run, 3)
    data = run.recipe.data.build()
    assert torch.from_numpy(found.real).equal(data.parts["held_out"]) and found.drawn.shape == (1000, 3)
    assert found.rows == run.generate(n=1000, seed=3000)[: tables.SHOWN]
    assert found.order[0] in (0, 1, 2) and sorted(found.order) == [0, 1, 2]
    assert tables.is_table(run) and not tables.is_table(sanbu.load(folder / "words")) and not tables.is_table(None)
    other = tables.draw_laws(tables.View(found.columns, found.real, found.real, found.rows))
    assert other.shape == tables.draw_laws(found).shape and (other != tables.draw_laws(found)).any()
    assert tables.draw_associations(found).shape[2] == 3


# -- the page ---------------------------------------------------------------------------------------------------------


def select(page, name):
    """Choose a run of a table. The list is read again when it gets the focus, and chosen from after that."""
    page.click("#run input")
    page.wait_for_timeout(2000)
    page.get_by_role("option", name=name).click()
    wait(lambda: page.input_value("#run input") == name and page.is_visible("#table-draw"))


def test_a_run_of_a_table_shows_columns_associations_and_rows(opened):
    page = opened()
    go(page, "Runs")
    wait(lambda: page.input_value("#run input") == "words")
    assert not page.is_visible("#table-draw")
    select(page, "rows")
    assert not page.is_visible("#table-laws")
    page.click("#table-draw")
    size = "image => image.complete ? image.naturalWidth : 0"
    for name in ("#table-laws img", "#table-associations img"):
        wait(lambda name=name: page.locator(name).count() and page.locator(name).first.evaluate(size) > 300)
    table = page.locator("#table-rows")
    table.scroll_into_view_if_needed()
    wait(lambda: {"a", "b$", "c", "x", "y"} <= set(table.inner_text().split()), 20)
    first = table.inner_text()
    page.fill("#table-seed input", "4")
    page.click("#table-draw")
    wait(lambda: table.is_visible() and table.inner_text() != first and "x" in table.inner_text().split(), 20)


@pytest.mark.slow
def test_what_is_drawn_for_one_run_is_not_shown_after_another_was_chosen(opened, monkeypatch):
    begun, go_on, view = threading.Event(), threading.Event(), tables.view
    monkeypatch.setattr(tables, "view", lambda *given: (begun.set(), go_on.wait(100), view(*given))[2])
    page = opened()
    go(page, "Runs")
    select(page, "rows")
    page.click("#table-draw")
    assert begun.wait(100)
    page.click("#run input")
    page.wait_for_timeout(2000)
    page.get_by_role("option", name="words").click()
    wait(lambda: not page.is_visible("#table-draw"))
    select(page, "rows")
    go_on.set()
    page.wait_for_timeout(1500)
    assert not page.is_visible("#table-laws") and not page.is_visible("#table-rows")


def test_a_table_that_is_gone_is_one_line(opened, studio, monkeypatch):
    from sanbu.config import SanbuError

    def gone(run, seed):
        raise SanbuError("there is no file 'gone.csv'")

    monkeypatch.setattr(tables, "view", gone)
    page = opened()
    go(page, "Runs")
    select(page, "rows")
    page.click("#table-draw")
    wait(lambda: page.is_visible("#table-note") and "gone.csv" in page.inner_text("#table-note"))
    assert not page.is_visible("#table-laws")
