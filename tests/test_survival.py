"""Kill, or a disk that fails, at every file operation of a run: the resumed run is the undisturbed one, bit for bit.

A child process counts its file operations below the run folder with an audit hook (opening for writing or syncing,
renaming, removing, truncating, making folders) and, at the n-th, kills itself or raises ENOSPC or EIO. Killing before
operation n + 1 is killing after operation n. The default run tries one operation in `STRIDE`, the slow run all.
"""

import errno
import json
import multiprocessing
import os
import signal
import sys

import pytest

from sanbu import recipes
from sanbu.config import SanbuError
from sanbu.files import read_tensors
from sanbu.loop import train
from sanbu.recipes import make
from sanbu.recipes.stages import Stage, train_stages

STRIDE = 18
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
COMMON = [
    "schedule.steps=4", "schedule.batch=4", "schedule.checkpoint_every=2", "schedule.evaluate_every=1",
    "schedule.keep=1", "schedule.evaluate_rows=4", "schedule.sample_every=2", "machine.threads=1",
    "machine.device=cpu", "machine.precision=float32",
]  # fmt: skip
TEXT = [
    "data.tokenizer=byte",
    "data.context=16",
    "model.context=16",
    "model.width=16",
    "model.heads=2",
    "model.layers=1",
]
PICTURES = ["model.width=16", "model.layers=1"]
BASE = ["model.layers=1", "model.heads=2", "model.width=16", "data.tokenizer.vocabulary=300"]
CHECKED = 'objective.rewards=[{"kind":"checked"}]'
KINDS = {
    "text": ("gpt2", [*TEXT, "strategy.max_tokens=4", "schedule.patience=2"]),
    "gan": ("gan", [*PICTURES, "objective.every=2"]),
    "diffusion": ("flow", [*PICTURES, "strategy.steps=2"]),
    "ppo": ("ppo", ["objective.epochs=2", "strategy.max_tokens=4", "data.answer=4", CHECKED]),
    "pipeline": ("base", [*BASE, "strategy.max_tokens=4"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Text, and a small base run for the stages that start from one."""
    folder = tmp_path_factory.mktemp("survival")
    (folder / "text.txt").write_text("It is 3, and what is 4? " * 500)
    recipe, rest = make("base", [f"path={folder / 'text.txt'}", *COMMON, *BASE])
    train(recipe.change(*rest), folder / "base", watchers=[])
    answers = [f"It is {n}." for n in range(80)]
    pairs = [{"prompt": f"{text}?", "chosen": text, "rejected": "No.", "answer": text} for text in answers]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    recipes.flow().data.build()  # imports what a child would import again
    return folder


def go(kind, place, folder):
    """Begin or resume a run of this kind."""
    name, changes = KINDS[kind]
    given = {"text": [f"data.path={place / 'text.txt'}"], "pipeline": [f"path={place / 'text.txt'}"]}
    given["ppo"] = [f"sft={place / 'base'}", f"path={place / 'pairs.jsonl'}"]
    recipe, rest = make(name, [*given.get(kind, []), *COMMON, *changes])
    recipe = recipe.change(*rest)
    if kind == "pipeline":
        second, more = make("base", [*given["pipeline"], *COMMON, *changes])
        parent = str(folder / "first")
        stages = [
            Stage("first", lambda folder: recipe),
            Stage("second", lambda folder: second.change(*more, parents={"model": parent})),
        ]
        train_stages(stages, folder, [], watchers=[])
    else:
        train(recipe, folder, resume=(folder / "recipe.json").exists(), watchers=[])


def child(kind, place, folder, at, what, pipe):
    """(In a child process) Run, with what is to happen at operation number `at`; report how many there were."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event not in EVENTS or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and isinstance(arguments[1], str) and not set(arguments[1]) & set("wax+"):
            return
        count += 1
        if count == at and what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == at:
            raise OSError(what, os.strerror(what), arguments[0])

    os.environ["OMP_NUM_THREADS"] = "1"
    sys.addaudithook(hook)
    try:
        go(kind, place, folder)
        pipe.send((count, ""))
    except (SanbuError, OSError) as error:
        pipe.send((count, str(error)))


def attempt(kind, place, folder, at=0, what="kill"):
    """Run in a child process; returns the number of operations and the error, or None if it was killed."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(kind, place, folder, at, what, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        process.join()


def everything(folder):
    """Every file of a run, or of the runs of a pipeline, without what times and places make differ."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name == "run.lock":
            continue
        if path.suffix == ".safetensors":
            found |= {
                f"{name}:{key}": tensor.numpy().tobytes() for key, tensor in read_tensors(path, sealed=True).items()
            }
        elif path.name == "metrics.jsonl":
            rows = map(json.loads, path.read_text().splitlines())
            found[name] = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
        elif path.name == "state.json":
            found[name] = json.loads(path.read_text())["state"]
        elif path.name == "recipe.json":
            found[name] = json.loads(path.read_text())["recipe"] | {"parents": None}
        elif path.name == "finished.json":
            found[name] = json.loads(path.read_text()) | {"metrics": None, "sha256": None}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module", params=KINDS)
def undisturbed(request, place):
    folder = place / f"whole-{request.param}"
    operations, error = attempt(request.param, place, folder)
    assert not error
    return request.param, operations, everything(folder)


def check(undisturbed, place, folder, at, what):
    kind, _, expected = undisturbed
    ended = attempt(kind, place, folder, at, what)
    if what == "kill":
        assert ended is None
    elif ended[1]:
        assert "\n" not in ended[1]
    _, error = attempt(kind, place, folder)
    assert not error, (at, what, error)
    found = everything(folder)
    assert found.keys() == expected.keys(), (at, what, found.keys() ^ expected.keys())
    assert not [name for name in found if found[name] != expected[name]], (at, what)


WHAT = ["kill", errno.ENOSPC, errno.EIO]


@pytest.mark.parametrize("what", WHAT)
def test_some_operations(undisturbed, place, tmp_path, what):
    for at in range(1 + WHAT.index(what) * 3, undisturbed[1] + 1, STRIDE):
        check(undisturbed, place, tmp_path / str(at), at, what)


@pytest.mark.slow
@pytest.mark.parametrize("what", WHAT)
def test_every_operation(undisturbed, place, tmp_path, what):
    for at in range(1, undisturbed[1] + 1):
        check(undisturbed, place, tmp_path / str(at), at, what)
