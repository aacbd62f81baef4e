"""Checkpoints of several ranks that go wrong: one line, and the run goes on from the checkpoint before."""

import errno
import shutil
from pathlib import Path

import pytest

from sanbu.checkpoints import Writer
from sanbu.config import SanbuError
from sanbu.loop import train
from sanbu.parallel import stored
from sanbu.parallel.layout import Layout
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import TEXT, recipe_of
from tests.parallel.test_states import PLAIN, Stop, check_equal, run_in

EVERY = ["schedule.checkpoint_every=1", "optimizer=adamw"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    recipe = recipe_of("gpt2", *PLAIN, *TEXT, *EVERY)
    folder = tmp_path_factory.mktemp("one") / "run"
    run_in("one", recipe, folder)
    return recipe, folder


def full(path, tensors, facts=None):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def elsewhere(path, tensors, checkpoint, write=stored.write):
    return write(Path("/nowhere") / path.parent.name / path.name, tensors, checkpoint)


FAULTS = {
    "full disk": ("write_tensors", full, "rank 1 could not write a checkpoint: [Errno 28] No space left on device"),
    "no folder": ("write", elsewhere, "rank 1 could not write a checkpoint: /nowhere is not on storage that all"),
}


def disturbed(recipe, folder, fault):
    """What a run ends with in which the third checkpoint of rank 1 goes wrong."""
    name, broken, _ = FAULTS[fault]

    def save_together(world, writer, checkpoint, *given, save=stored.save_together):
        if world.rank == 1 and checkpoint == "step-00000003":
            setattr(stored, name, broken)
        return save(world, writer, checkpoint, *given)

    stored.save_together = save_together
    try:
        train(recipe, folder, watchers=[])
    except SanbuError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("saving", ["wait", "background"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_rank_that_cannot_write(undisturbed, tmp_path, fault, saving):
    recipe, one = undisturbed
    recipe, folder = recipe.change(layout=Layout(zero=3), saving=saving), tmp_path / "run"
    for said in run_processes(2, disturbed, recipe, folder, fault):
        assert FAULTS[fault][2] in said and "\n" not in said
    assert [path.name for path in Writer(folder).checkpoints()] == ["step-00000001", "step-00000002"]
    assert not list((folder / "checkpoints").glob(".*"))
    run_in("zero3", recipe, folder, resume=True)
    check_equal(folder, one)


@pytest.mark.parametrize("file", ["state.json", "rank-00001.safetensors"])
def test_a_checkpoint_that_was_half_written(undisturbed, tmp_path, file):
    """A kill leaves the folder under its temporary name, without some of its files."""
    recipe, folder = undisturbed[0], tmp_path / "run"
    run_in("zero3", recipe, folder, after=2)
    latest = folder / "checkpoints" / "step-00000002"
    (latest / file).unlink()
    latest.rename(latest.with_name(f".{latest.name}.tmp"))
    run_in("zero3", recipe, folder, resume=True)
    check_equal(folder, undisturbed[1])
    assert not list((folder / "checkpoints").glob(".*"))


def go(recipe, folder, after):
    train(recipe, folder, watchers=[Stop(after)] if after else [], resume=folder.exists())


def test_ranks_that_write_in_the_background(undisturbed, tmp_path):
    recipe, folder = undisturbed[0], tmp_path / "run"
    recipe = recipe.change(layout=Layout(zero=3), saving="background")
    run_processes(2, go, recipe, folder, 2)
    shutil.copytree(folder, tmp_path / "stopped")
    run_processes(2, go, recipe, folder, 0)
    check_equal(folder, undisturbed[1])
    assert Writer(tmp_path / "stopped").checkpoints()[-1].name == "step-00000002"
