"""Checkpoints that are written in the background: what they hold is what training was at their step."""

import threading

import pytest

from sanbu.checkpoints import Writer
from sanbu.config import SanbuError
from sanbu.files import FileError, file_hash
from sanbu.loop import train
from sanbu.watcher import STOP, Watcher
from tests.test_rewind import recipe, rows


class Steps(Watcher):
    """Says when a step has been taken; asks to stop after one."""

    def __init__(self, waits=0, stop=0):
        self.waits, self.stop, self.reached = waits, stop, threading.Event()

    def step(self, row):
        if row["step"] == self.waits:
            self.reached.set()
        return STOP if row["step"] == self.stop else None


def hashes(folder):
    return {str(path.relative_to(folder)): file_hash(path) for path in sorted(folder.rglob("*.safetensors"))}


def test_training_goes_on_and_the_checkpoint_is_that_of_its_step(tmp_path, monkeypatch):
    """Each checkpoint is written only after two further steps have been taken."""
    train(recipe(keep=9, average="exponential"), tmp_path / "wait", watchers=[])
    watcher, save = Steps(waits=6), Writer.save_checkpoint
    late = []

    def slow(self, name, state, about):
        if name == "step-00000004":
            late.append(watcher.reached.wait(20))
        return save(self, name, state, about)

    monkeypatch.setattr(Writer, "save_checkpoint", slow)
    train(recipe(keep=9, average="exponential", saving="background"), tmp_path / "run", watchers=[watcher])
    assert late == [True]
    assert hashes(tmp_path / "run") == hashes(tmp_path / "wait") and len(hashes(tmp_path / "run")) == 5
    assert rows(tmp_path / "run") == rows(tmp_path / "wait")


def test_a_run_goes_on_from_what_was_written_in_the_background(tmp_path):
    train(recipe(6), tmp_path / "whole", watchers=[])
    given = recipe(6, saving="background")
    for _ in range(3):
        train(given, tmp_path / "run", watchers=[Steps(stop=5)], resume=(tmp_path / "run").exists())
    assert file_hash(tmp_path / "run" / "model.safetensors") == file_hash(tmp_path / "whole" / "model.safetensors")


def test_a_write_that_fails_ends_the_run_in_one_line(tmp_path, monkeypatch):
    save = Writer.save_checkpoint

    def full(self, name, state, about):
        if name == "step-00000008":
            raise FileError("cannot write step-00000008: No space left on device")
        return save(self, name, state, about)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "save_checkpoint", full)
        with pytest.raises(SanbuError, match="No space left on device"):
            train(recipe(saving="background"), tmp_path / "run", watchers=[])
    assert Writer(tmp_path / "run").checkpoints()[-1].name == "step-00000004"
    train(recipe(saving="background"), tmp_path / "run", watchers=[], resume=True)
    train(recipe(), tmp_path / "whole", watchers=[])
    assert file_hash(tmp_path / "run" / "model.safetensors") == file_hash(tmp_path / "whole" / "model.safetensors")
