"""One flipped bit, a lost end, or a lost file: one clear line or the right result, never another one."""

import hashlib
import json
import shutil

import pytest

from sanbu.config import SanbuError
from sanbu.files import read_tensors
from sanbu.interop.averages import rebuild
from sanbu.loop import train
from sanbu.recipes import make
from sanbu.run import Run
from tests.test_survival import COMMON, PICTURES

TEXT = ["data.tokenizer.vocabulary=300", "data.context=16", "model.context=16", "model.width=16", "model.heads=2"]
RUNS = {
    "gpt2": [*TEXT, "model.layers=1", "strategy.max_tokens=4"],
    "flow": [*PICTURES, "strategy.steps=2"],
}


def continued(folder):
    run = train(Run.open(folder).recipe, folder, resume=True, watchers=[])
    tensors = read_tensors(run.folder / "model.safetensors", sealed=True)
    rows = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in run.metrics()]
    return [tensors[name].numpy().tobytes() for name in sorted(tensors)], rows


def averaged(folder):
    made = rebuild(Run.open(folder), 0.1, folder.with_name("average"))
    return [tensor.numpy().tobytes() for tensor in made.model.state_dict().values()]


ACTIONS = {
    "generate": lambda folder: str(Run.open(folder).generate(seed=1)),
    "metrics": lambda folder: [row["loss"] for row in Run.open(folder).metrics()],
    "resume": continued,
    "average": averaged,
}


def outcome(what, folder):
    """The result of an action, or its error."""
    try:
        return ACTIONS[what](folder)
    except SanbuError as error:
        return error
    finally:
        shutil.rmtree(folder.with_name("average"), ignore_errors=True)


@pytest.fixture(scope="module", params=RUNS)
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "text.txt").write_text("It is 3, and what is 4? " * 500)
    recipe, rest = make(request.param, [*COMMON, "schedule.patience=0", *RUNS[request.param]])
    data = [f"data.path={folder / 'text.txt'}"] if request.param == "gpt2" else []
    train(recipe.change(*data, *rest), folder / "run", watchers=[])
    known = {what: outcome(what, shutil.copytree(folder / "run", folder / what / "run")) for what in ACTIONS}
    return folder / "run", known


def flips(content):
    """Copies of a file with one bit changed: in its first and last bytes, and in others spread by a hash."""
    places = {*range(0, min(16, len(content)), 5), len(content) - 1, len(content) // 2}
    places |= {int.from_bytes(hashlib.sha256(bytes([n])).digest()[:4]) % len(content) for n in range(3)}
    for place in sorted(places):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        yield bytes(changed)


def test_damage_to_any_file_is_noticed_or_repaired(whole, tmp_path):
    run, known = whole
    skipped = ("samples", "run.lock")  # for people only, and empty
    files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
    for file in files:
        if file.parts[0] in skipped:
            continue
        content = (run / file).read_bytes()
        for number, damage in enumerate([*flips(content), content[: len(content) // 2], b"", None]):
            noticed = False
            for what in ACTIONS:
                folder = tmp_path / f"{number}-{what}" / "run"
                shutil.copytree(run, folder)
                (folder / file).unlink() if damage is None else (folder / file).write_bytes(damage)
                found = outcome(what, folder)
                repaired = what == "resume" and (folder / file).exists() and (folder / file).read_bytes() != damage
                noticed |= isinstance(found, SanbuError) or repaired
                well = "\n" not in str(found) if isinstance(found, SanbuError) else found == known[what]
                assert well, (file, number, what, found)
                shutil.rmtree(folder.parent)
            assert noticed, (file, number)


def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("It is 3, and what is 4? " * 500)
    recipe, _ = make("gpt2", [])
    data = recipe.change(f"data.path={tmp_path / 'text.txt'}", *TEXT).data
    known = data.build().batch(0, 4)
    files = [path for path in sorted((tmp_path / "cache").rglob("*")) if path.is_file() and path.stat().st_size]
    assert {path.name for path in files} >= {"header.json", "train.bin", "tokenizer.json", "hashes.json"}
    for file in files:
        content = file.read_bytes()
        for damage in flips(content):
            file.write_bytes(damage)
            with pytest.warns(UserWarning, match="is damaged and is made again"):
                found = data.build().batch(0, 4)
            assert all(found[name].equal(known[name]) for name in known), (file, json.dumps(damage[:20].hex()))
            assert file.read_bytes() == content
