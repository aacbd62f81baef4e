"""A process killed by a real signal and resumed ends bitwise equal to an uninterrupted run."""

import json
import multiprocessing
import signal

import pytest

from sanbu.files import read_tensors
from tests.tenants.crash import main


def run(name, folder, where="nowhere"):
    child = multiprocessing.get_context("fork").Process(target=main, args=(name, str(folder), where))
    child.start()
    child.join()
    return child.exitcode


def everything(folder):
    """Weights, optimizer state and the deterministic columns of the metrics."""
    last = sorted((folder / "checkpoints").iterdir())[-1]
    state = json.loads((last / "state.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]
    return read_tensors(last / "state.safetensors"), read_tensors(folder / "model.safetensors"), state["state"], metrics


@pytest.fixture(scope="module", params=["gan", "ppo", "genetic"])
def undisturbed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / request.param
    assert run(request.param, folder) == 0
    return request.param, everything(folder)


@pytest.mark.parametrize("where", ["round", "write", "turn", "term"])
def test_resumes_bitwise(undisturbed, tmp_path, where):
    name, expected = undisturbed
    folder = tmp_path / "run"
    assert run(name, folder, where) == (0 if where == "term" else -signal.SIGKILL)
    if where == "term" and name != "genetic":  # a genetic round has a single turn
        assert any("turn" in path.name for path in (folder / "checkpoints").iterdir())
    assert run(name, folder) == 0
    state, model, tree, metrics = everything(folder)
    assert state.keys() == expected[0].keys() and all(state[key].equal(expected[0][key]) for key in state)
    assert model.keys() == expected[1].keys() and all(model[key].equal(expected[1][key]) for key in model)
    assert tree == expected[2]
    assert metrics == expected[3] and len(metrics) == 12
