"""SIGTERM and SIGINT are heard within 3 s while data is prepared, and leave nothing behind."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from sanbu.progress import SIGNALS, interruptible, start, stop_now

SMALL = ["data.context=32", "model.layers=1", "model.heads=1", "model.width=16", "schedule.steps=1"]
MACHINE = ["machine.threads=1", "machine.compile=off"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """10 MB of random words: some seconds of training a tokenizer, and some of tokenizing."""
    draws = random.Random(0)
    words = ["".join(draws.choices("abcdefghijklmnopqrstuvwxyz", k=draws.randint(2, 9))) for _ in range(100_000)]
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(" ".join(draws.choices(words, k=12)) for _ in range(140_000)), encoding="utf-8")
    return file


def training(place):
    return any(place.glob("cache/.text-*.tmp"))


def tokenizing(place):
    return any(file.stat().st_size > 0 for file in place.glob("cache/.text-*.tmp/train.bin"))


@pytest.mark.parametrize(
    ("verb", "phase", "number"),
    [
        ("train", training, "SIGTERM"),
        pytest.param("train", tokenizing, "SIGINT", marks=pytest.mark.slow),  # 45 s on a loaded machine
        ("preview", training, "SIGTERM"),
    ],
)
def test_an_interrupt_is_heard_and_leaves_nothing(tmp_path, text, verb, phase, number):
    run = ["--run", str(tmp_path / "run")] if verb == "train" else []
    child = subprocess.Popen(
        [sys.executable, "-m", "sanbu", verb, "gpt2", f"data.path={text}", *SMALL, *MACHINE, *run],
        env={**os.environ, "SANBU_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not phase(tmp_path) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    child.send_signal(getattr(signal, number))
    begun = time.monotonic()
    said, _ = child.communicate(timeout=60)
    assert time.monotonic() - begun < 15  # a loaded machine needs seconds to end a process
    assert child.returncode == 130 and "Traceback" not in said
    assert not (tmp_path / "run").exists() and not any(tmp_path.glob("cache/*text*.tmp"))
    assert not any(path.is_dir() for path in (tmp_path / "cache").iterdir())


def test_a_second_signal_does_not_interrupt_the_removal():
    old = [signal.getsignal(number) for number in SIGNALS]
    removed = []

    def work():
        with interruptible():
            try:
                with interruptible():  # as a cache inside a training
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(1)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                removed.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert removed and [signal.getsignal(number) for number in SIGNALS] == old


def test_an_ignored_signal_stays_ignored():
    """A program started with nohup, or in the background of a script, does not hear Ctrl-C."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGTERM) is stop_now
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


def test_in_another_thread_nothing_changes():
    def work():
        with interruptible():
            return signal.getsignal(signal.SIGTERM)

    assert start(work).result() is signal.getsignal(signal.SIGTERM)


def test_work_in_a_thread_gives_its_result_or_its_error():
    assert start(lambda: 3).result() == 3
    with pytest.raises(ZeroDivisionError):
        start(lambda: 1 / 0).result()
