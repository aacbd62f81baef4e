"""A run goes on in any other layout; what one process writes and what several write is the same."""

import json

import pytest

import sanbu
from sanbu.config import SanbuError
from sanbu.files import read_tensors
from sanbu.loop import train
from sanbu.parallel import reading
from sanbu.parallel.layout import Layout
from sanbu.parallel.reading import Files
from sanbu.run import Run
from sanbu.watcher import Watcher
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import TEXT, recipe_of

PLAIN = ["machine.device=cpu", "machine.precision=float32", "machine.threads=1", "schedule.steps=4"]
LOOKS = ["schedule.checkpoint_every=1", "schedule.evaluate_every=2", "schedule.sample_every=4", "strategy.max_tokens=8"]
LAYOUTS = {
    "one": (1, {}),
    "data": (2, {"data": 2}),
    "zero1": (2, {"zero": 1}),
    "zero3": (2, {"zero": 3}),
    "hybrid": (4, {"zero": 3, "shard": 2}),
    "tensor": (2, {"tensor": 2}),
    "pipeline": (2, {"pipeline": 2}),
    "interleaved": (2, {"pipeline": 2, "schedule": "interleaved"}),
    "context": (2, {"context": 2}),
    "three": (8, {"pipeline": 2, "tensor": 2, "zero": 3}),
}


class Stop(Watcher):
    """Ends a run after a step."""

    def __init__(self, after):
        self.after = after

    def step(self, row):
        return sanbu.STOP if row["step"] == self.after else None


def go(recipe, folder, after, resume):
    train(recipe, folder, watchers=[Stop(after)] if after else [], resume=resume)


def run_in(layout, recipe, folder, after=0, resume=False):
    count, degrees = LAYOUTS[layout]
    recipe = recipe.change(layout=Layout(**degrees))
    if count == 1:
        go(recipe, folder, after, resume)
    else:
        run_processes(count, go, recipe, folder, after, resume)


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in found]


@pytest.fixture(scope="module", params=["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def undisturbed(request, tmp_path_factory):
    """A recipe, and its run in one process."""
    recipe = recipe_of("gpt2", *PLAIN, *TEXT, *LOOKS, f"optimizer={request.param}", "average=exponential")
    folder = tmp_path_factory.mktemp("one") / "run"
    run_in("one", recipe, folder)
    return recipe, folder


def check_equal(folder, other):
    assert len(rows(folder)) == len(rows(other)) == 4
    for mine, theirs in zip(rows(folder), rows(other), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    mine, theirs = (read_tensors(place / "model.safetensors", sealed=True) for place in (folder, other))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert (tensor - theirs[name]).abs().max() < 2e-5, name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("data", "zero1"),
        ("zero1", "one"),
        ("zero3", "pipeline"),
        ("pipeline", "zero3"),
        ("one", "tensor"),
        ("tensor", "data"),
        pytest.param("hybrid", "interleaved", marks=pytest.mark.slow),
        pytest.param("interleaved", "hybrid", marks=pytest.mark.slow),
        pytest.param("three", "one", marks=pytest.mark.slow),
        pytest.param("context", "three", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_in_another_layout(undisturbed, tmp_path, before, after):
    recipe, one = undisturbed
    folder = tmp_path / "run"
    run_in(before, recipe, folder, after=2)
    assert len(rows(folder)) == 2
    run_in(after, recipe, folder, resume=True)
    check_equal(folder, one)
    assert Run.open(folder).generate(n=1)


def bytes_read(recipe, folder):
    """What this rank reads of a checkpoint to go on: bytes of tensors, and files that it checks."""
    read, check, taken, checked = Files.read, reading.read_file, [], []

    def counting(self, *given):
        found = read(self, *given)
        taken.append(found.nbytes)
        return found

    def checking(path, about, number):
        checked.append(number)
        return check(path, about, number)

    Files.read, reading.read_file = counting, checking
    train(recipe, folder, watchers=[Stop(3)], resume=True)
    return sum(taken), checked


@pytest.mark.parametrize("before", ["zero3", "one"])
def test_a_rank_reads_its_part_of_a_checkpoint(undisturbed, tmp_path, before):
    recipe, folder = undisturbed[0], tmp_path / "run"
    run_in(before, recipe, folder, after=2)
    checkpoint = folder / "checkpoints" / "step-00000002"
    files = sorted(checkpoint.glob("*.safetensors"))
    whole = sum(file.stat().st_size for file in files)
    found = run_processes(2, bytes_read, recipe.change(layout=Layout(zero=3)), folder)
    assert all(0.35 * whole < taken < 0.55 * whole for taken, _ in found)
    assert sorted(number for _, checked in found for number in checked) == list(range(len(files)))


def damaged(recipe, folder):
    try:
        train(recipe, folder, watchers=[], resume=True)
    except SanbuError as error:
        return str(error)
    return ""


def test_a_checkpoint_without_a_part_is_one_line(undisturbed, tmp_path):
    recipe, folder = undisturbed[0], tmp_path / "run"
    run_in("zero3", recipe, folder, after=2)
    part = folder / "checkpoints" / "step-00000002" / "rank-00001.safetensors"
    part.unlink()
    layout = Layout(zero=3)
    for said in run_processes(2, damaged, recipe.change(layout=layout), folder):
        assert "rank-00001.safetensors is missing or damaged" in said and "delete" in said and "\n" not in said
    for path in (part.parent / "state.json", part.parent / "rank-00000.safetensors"):
        path.unlink()
    part.parent.rmdir()
    run_in("zero3", recipe, folder, resume=True)
    check_equal(folder, undisturbed[1])
