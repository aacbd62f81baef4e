"""How many threads an evaluation uses: one or all, by measuring."""

import itertools

import pytest
import torch
from torch import nn

from sanbu import machine
from sanbu.evaluation import measure


@pytest.fixture
def cost(monkeypatch):
    """Seconds of a product by its number of threads, on a clock that products alone move."""
    costs, clock = {1: 1.0, 2: 1.0}, itertools.accumulate(iter(lambda: costs[torch.get_num_threads()], None))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield costs
    torch.set_num_threads(before)


@pytest.mark.parametrize(("one", "two", "chosen"), [(1.0, 2.0, 1), (2.0, 1.0, 2)])
def test_the_faster_number_of_threads_is_used_and_the_former_restored(cost, one, two, chosen):
    cost |= {1: one, 2: two}
    with machine.fitting_threads(nn.Linear(8, 8)) as threads:
        assert threads == torch.get_num_threads() == chosen
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="x"), machine.fitting_threads(nn.Linear(8, 8)):
        raise ValueError("x")
    assert torch.get_num_threads() == 2


def test_nothing_is_measured_where_there_is_no_choice(cost):
    with machine.fitting_threads(nn.LayerNorm(4)) as threads:
        assert threads == 2
    torch.set_num_threads(1)
    cost.clear()  # measuring would be a KeyError
    with machine.fitting_threads(nn.Linear(8, 8)) as threads:
        assert threads == 1


def test_evaluations_use_it(cost, monkeypatch):
    class Found:
        model = nn.Linear(8, 8)

    cost |= {2: 5.0}
    monkeypatch.setattr(measure, "measure_with", lambda runs, chosen: torch.get_num_threads())
    assert measure.measure([Found()]) == 1
