"""A loss that is NaN or rises: training goes back to the last checkpoint and leaves out the batches since."""

import json
from typing import Literal

import pytest
import torch

from sanbu.config import SanbuError
from sanbu.files import file_hash
from sanbu.loop import train
from sanbu.optimizers.search import NotFinite
from sanbu.training import Training
from sanbu.watcher import STOP, Watcher
from tests.tenants import vae
from tests.tenants.common import CPU, Made, MadeRows, pair

ROWS, STEPS = 8, 12


class Spoilt(Made):
    """The rows of the tenants with some batches that are multiplied by a number."""

    kind: Literal["spoilt"] = "spoilt"
    maker: str = "pair"
    times: float = 1e30
    batches: tuple[int, ...] = ()

    def build(self):
        return SpoiltRows(self)


class SpoiltRows(MadeRows):
    def __init__(self, config):
        super().__init__(pair)
        self.config = config

    def batch(self, start, size):
        found = super().batch(start, size)
        spoilt = [number // ROWS in self.config.batches for number in range(start, start + size)]
        found["x"][torch.tensor(spoilt)] *= self.config.times
        return found


class Notes(Watcher):
    """Where training went back to; asks to stop after some steps."""

    def __init__(self, stops=()):
        self.stops, self.back = set(stops), []

    def step(self, row):
        if row["step"] in self.stops:
            self.stops.remove(row["step"])
            return STOP
        return None

    def rewind(self, step, reason):
        self.back.append((step, reason))


def recipe(*batches, times=1e30, **schedule):
    given = {"steps": STEPS, "batch": ROWS, "checkpoint_every": 4, "rewinds": 3, "evaluate_every": 0, **schedule}
    return vae.recipe().change(data=Spoilt(batches=batches, times=times), machine=CPU, **given)


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in lines]


@pytest.fixture
def shifted(monkeypatch):
    """The run without spoilt batches in which, from step 4 on, training reads the batches from 7 on."""

    def run(folder, begins=4, skipped=3):
        with monkeypatch.context() as patch:
            number = property(lambda self: self.step + (skipped if self.step >= begins else 0))
            patch.setattr(Training, "batch", number)
            train(recipe(), folder, watchers=[])
        return file_hash(folder / "model.safetensors")

    return run


def test_the_batches_since_the_last_checkpoint_are_left_out(tmp_path, shifted):
    notes = Notes()
    train(recipe(6), tmp_path / "run", watchers=[notes])
    assert [step for step, _ in notes.back] == [4] and "step 7, turn 1: the loss" in notes.back[0][1]
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, STEPS + 1))
    assert [row["skipped"] for row in rows(tmp_path / "run")] == 4 * [0] + 8 * [3]
    assert file_hash(tmp_path / "run" / "model.safetensors") == shifted(tmp_path / "shifted")


def test_it_goes_back_again_and_to_the_beginning(tmp_path, shifted):
    notes = Notes()
    train(recipe(1, 3), tmp_path / "run", watchers=[notes])
    assert [step for step, _ in notes.back] == [0, 0]
    assert file_hash(tmp_path / "run" / "model.safetensors") == shifted(tmp_path / "shifted", 0, 4)


def test_more_often_than_allowed_is_one_line(tmp_path):
    for rewinds, place in ((0, "step 6, turn 1"), (1, "step 5, turn 1")):
        with pytest.raises(SanbuError, match=rf"{place}: .*the last good checkpoint is .*step-00000004") as error:
            train(recipe(5, 6, rewinds=rewinds), tmp_path / f"run-{rewinds}", watchers=[])
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("stops", [{5}, {6}, {9}, {5, 6, 7, 11}], ids=str)
def test_a_run_that_was_stopped_is_the_same(tmp_path, stops):
    """An interrupt causes checkpoints beside the schedule; training never goes back to one of them."""
    train(recipe(6, 9, keep=1), tmp_path / "whole", watchers=[])
    notes = Notes(stops)
    train(recipe(6, 9, keep=1), tmp_path / "run", watchers=[notes])
    for _ in stops:
        train(recipe(6, 9, keep=1), tmp_path / "run", resume=True, watchers=[notes])
    assert not notes.stops
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert file_hash(tmp_path / "run" / "model.safetensors") == file_hash(tmp_path / "whole" / "model.safetensors")


def test_a_rise_counts_too(tmp_path, shifted):
    notes = Notes()
    train(recipe(9, times=30.0, spike=3.0), tmp_path / "run", watchers=[notes])
    assert [step for step, _ in notes.back] == [8] and "the loss rose to" in notes.back[0][1]
    assert file_hash(tmp_path / "run" / "model.safetensors") == shifted(tmp_path / "shifted", 8, 2)
    train(recipe(9, times=30.0), tmp_path / "other", watchers=[notes])
    assert len(notes.back) == 1


def test_weights_that_are_spoilt_by_the_last_step_are_noticed(tmp_path, monkeypatch, shifted):
    """No further loss would show it."""
    notes = Notes()

    def check_finite(self):
        if self.step == STEPS and not self.skipped:
            raise NotFinite("the weight 'spread' became NaN")

    monkeypatch.setattr(Training, "check_finite", check_finite)
    train(recipe(), tmp_path / "run", watchers=[notes])
    assert [step for step, _ in notes.back] == [8]
    assert file_hash(tmp_path / "run" / "model.safetensors") == shifted(tmp_path / "shifted", 8, 4)
