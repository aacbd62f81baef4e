"""Several processes go back together, and then take the steps of one process."""

import pytest

from sanbu.loop import train
from sanbu.parallel.layout import Layout
from tests.parallel.processes import run_processes
from tests.test_rewind import STEPS, Notes, recipe, rows


def go(recipe, folder):
    notes = Notes()
    train(recipe, folder, watchers=[notes])
    return notes.back


@pytest.mark.parametrize("layout", [{}, {"zero": 2}, {"zero": 3}], ids=str)
def test_processes_go_back_together(tmp_path, layout):
    spoilt = recipe(6, 9)
    back = go(spoilt, tmp_path / "one")
    found = run_processes(2, go, spoilt.change(layout=Layout(**layout)), tmp_path / "two")
    assert [step for step, _ in found[0]] == [step for step, _ in back] == [4, 4]
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == STEPS
    for mine, theirs in zip(two, one, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)
