"""Whole jobs: processes started by `train`, killed, stopped, and in error."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from sanbu.files import file_hash
from tests.parallel.test_parity import TEXT

LONG = 600  # seconds: only a job that hangs takes so long
COMMON = [
    "machine.device=cpu", "machine.precision=float32", "machine.threads=1", "schedule.steps=60",
    "schedule.checkpoint_every=5", "schedule.evaluate_every=20",
]  # fmt: skip


def start(folder, *layout, resume=()):
    command = [sys.executable, "-m", "sanbu", "train", "gpt2", "--run", str(folder), *resume]
    changes = [] if resume else [*COMMON, *TEXT]
    return subprocess.Popen(
        [*command, *changes, *layout], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder.parent
    )


def members(process):
    """The processes of a job, by rank."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                if parent == process.pid:
                    with open(f"/proc/{entry}/environ", "rb") as file:
                        values = dict(each.split("=", 1) for each in file.read().decode().split("\0") if "=" in each)
                    found[int(values["RANK"])] = int(entry)
            except (OSError, KeyError):
                continue
    return found


def wait_for_step(folder, step, process, seconds=LONG):
    until = time.monotonic() + seconds
    path = folder / "metrics.jsonl"
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[0]}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(folder, "layout.data=2", "layout.zero=3")
    assert process.wait(LONG) == 0, process.communicate()[0]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3 * LONG)
def test_a_killed_rank_changes_nothing(undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "layout.data=2", "layout.zero=3")
    wait_for_step(folder, 12, process)
    os.kill(members(process)[1], signal.SIGKILL)
    output = process.communicate(timeout=LONG)[0]
    assert process.returncode == 0, output
    assert "a process died; all start again from the last checkpoint" in output and "Traceback" not in output
    assert file_hash(folder / "model.safetensors") == file_hash(undisturbed / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(3 * LONG)
def test_a_rank_that_hangs_is_named_and_changes_nothing(undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "layout.data=2", "layout.zero=3", "layout.timeout=5")
    wait_for_step(folder, 12, process)
    os.kill(members(process)[1], signal.SIGSTOP)
    output = process.communicate(timeout=LONG)[0]
    assert process.returncode == 0, output
    assert output.count(f"rank 1 on {socket.gethostname()} did not answer for 5 seconds") == 1
    assert "all start again" in output and "Traceback" not in output
    assert file_hash(folder / "model.safetensors") == file_hash(undisturbed / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(20 * LONG)
def test_kills_at_random_moments(tmp_path):
    chance = random.Random(0)
    whole = tmp_path / "whole"
    assert start(whole, "layout.data=4", "layout.zero=2").wait(LONG) == 0
    for number in range(20):
        folder = tmp_path / f"run-{number}"
        process = start(folder, "layout.data=4", "layout.zero=2")
        wait_for_step(folder, chance.randrange(1, 55), process)
        time.sleep(chance.random() * 0.1)
        os.kill(members(process)[chance.randrange(4)], signal.SIGKILL)
        output = process.communicate(timeout=LONG)[0]
        assert process.returncode == 0, output
        assert file_hash(folder / "model.safetensors") == file_hash(whole / "model.safetensors"), number


@pytest.mark.slow
@pytest.mark.timeout(3 * LONG)
def test_an_interrupt_saves_and_stops(undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "layout.data=2", "layout.zero=3")
    wait_for_step(folder, 8, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=LONG)[0]
    assert "stopped and saved" in output and "Traceback" not in output
    assert not (folder / "finished.json").exists() and list((folder / "checkpoints").glob("step-*"))
    assert start(folder, resume=["--resume"]).wait(LONG) == 0
    assert file_hash(folder / "model.safetensors") == file_hash(undisturbed / "model.safetensors")


def test_an_error_is_one_line(tmp_path):
    process = start(tmp_path / "run", "layout.data=3")
    output = process.communicate(timeout=LONG)[0]
    assert process.returncode == 2 and output.count("\n") == 1
    assert "schedule.batch: given 8, but the rows are divided over 3 data ranks; allowed: a multiple of 3" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(3 * LONG)
def test_torchrun_works_too(undisturbed, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "--", "sanbu", "train", "gpt2", "--run", str(folder), *COMMON, *TEXT, "layout.zero=3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    assert file_hash(folder / "model.safetensors") == file_hash(undisturbed / "model.safetensors")
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == 1 and answers[0]["step"] == 60
