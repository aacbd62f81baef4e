"""Long work off a terminal: lines with the time left at growing intervals, none for short work; bars in a terminal."""

import io
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from rich.console import Console as Screen

from sanbu import progress
from sanbu.display.console import Console, those_that_fit
from sanbu.evaluation import held_out
from sanbu.evaluation.contest import some
from sanbu.interop.shards import read_indexed
from sanbu.progress import Lines, duration, progress_bytes, progress_rows, progress_tasks
from sanbu.recipes import stages


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock.now."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_lines_come_after_10_30_70_seconds_then_once_a_minute(clock, capsys):
    lines, times = Lines("training", 1000), []
    for second in range(1, 1001):
        clock.now, lines.done = 1000.0 + second, second
        lines.say(f"step {second}")
        if capsys.readouterr().err:
            times.append(second)
    assert times == [10, 30, *range(70, 1000, 60), 1000]


def test_a_line_has_the_work_how_far_it_is_and_the_time_left(clock, capsys):
    lines = Lines("training", 2000, done=1000)  # resumed: the first half took other time
    clock.now, lines.done = 1025.0, 1250
    lines.say("step 1,250 of 2,000  loss [bold] 1.83")
    clock.now, lines.done = 1100.0, 2000
    lines.say("step 2,000 of 2,000")
    lines.say("step 2,000 of 2,000")
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "training  step 1,250 of 2,000  loss [bold] 1.83  1 min 15 s left",
        "training  step 2,000 of 2,000  took 1 min 40 s",
    ]


def test_short_work_is_silent(clock, capsys):
    for context in (progress_rows, progress_tasks, progress_bytes):
        with context("work", 10) as say:
            for number in range(10):
                clock.now += 0.99
                say(1, f"part {number}") if context is progress_tasks else say(1)
    assert capsys.readouterr() == ("", "")


def test_rows_tasks_and_bytes(clock, capsys):
    for context, more in ((progress_rows, ()), (progress_tasks, ("flow-0, edm-0",)), (progress_bytes, ())):
        with context("work", 8000) as say:
            clock.now += 20
            say(2000, *more)
    with progress_bytes("tokenizing", None) as say:
        clock.now += 20
        say(5_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "work  2,000 of 8,000  1 min 0 s left",
        "work  25 %  flow-0, edm-0  1 min 0 s left",
        "work  2.0 kB of 8.0 kB  1 min 0 s left",
        "tokenizing  5.0 MB",
    ]


def test_durations():
    found = [duration(seconds) for seconds in (0.2, 59.4, 59.6, 80, 3599, 7500, 360_000)]
    assert found == ["1 s", "59 s", "1 min 0 s", "1 min 20 s", "59 min 59 s", "2 h 5 min", "100 h 0 min"]


def test_training_says_its_step_and_metrics(clock, capsys):
    watcher = Console()
    watcher.lines, watcher.per_step, watcher.unit = Lines("training", 2000), 100, "tokens/s"
    for step in (1, 400, 800, 2000):
        clock.now = 1000.0 + step / 20
        watcher.step({"step": step, "loss": 1.83, "time/seconds": 0.05})
    assert capsys.readouterr().err.splitlines() == [
        "training  step 400 of 2,000  loss 1.830, 2,000 tokens/s  1 min 20 s left",
        "training  step 800 of 2,000  loss 1.830, 2,000 tokens/s  1 min 0 s left",
        "training  step 2,000 of 2,000  loss 1.830, 2,000 tokens/s  took 1 min 40 s",
    ]


def test_names_beside_a_bar_are_not_cut(monkeypatch):
    """At any width the bars show whole words, and training the metrics that fit."""
    for width in (60, 80, 100, 120):
        file = io.StringIO()
        screen = Screen(file=file, width=width, force_terminal=True, color_system=None)
        monkeypatch.setattr(progress, "error_stream", lambda screen=screen: screen)
        with progress_tasks("comparing", 10) as say:
            say(4, "consistency-from-edm-0, pixelcnn-0, diagonal-bilstm-with-a-long-name-0 and 13 more")
        with progress_rows("answers of a run with a rather long name of its own", 10) as say:
            say(4)
        shown = file.getvalue()
        assert "…" not in shown and "more" in shown and "40%" in shown
        assert all(len(line) <= width for line in shown.replace("\r", "\n").split("\n") if "\x1b" not in line)
    assert those_that_fit(["loss 1.830", "bits per byte 2.345", "9 tokens/s"], 24) == "loss 1.830, 9 tokens/s"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more" and some(["a"]) == "a"


def test_the_bar_of_training_is_not_cut(monkeypatch):
    for width in (60, 80, 100, 120):
        file = io.StringIO()
        watcher = Console()
        watcher.out = Screen(file=file, width=width, force_terminal=True, color_system=None)
        codec = SimpleNamespace(unit="tokens", amount=lambda batch: 16)
        schedule = SimpleNamespace(steps=20_000, batch=16)
        training = SimpleNamespace(
            recipe=SimpleNamespace(schedule=schedule),
            models={"model": SimpleNamespace(parameters=list)},
            data=SimpleNamespace(describe=lambda: "text", codec=codec, batch=lambda start, size: {}),
            machine=SimpleNamespace(describe=lambda: "cpu"),
            step=0,
        )
        recipe = SimpleNamespace(
            name="gpt2",
            model=SimpleNamespace(caution=lambda space: ""),
            data=SimpleNamespace(space=lambda: None),
        )
        watcher.begin(SimpleNamespace(recipe=recipe, folder="runs/gpt2"), training)
        row = {"step": 12_345, "loss": 1.834, "bits_per_byte": 2.345, "accuracy": 0.123, "time/seconds": 0.01}
        watcher.step(row)
        watcher.bar.refresh()
        watcher.close()
        assert "12345/20000" in file.getvalue() and "loss 1.834" in file.getvalue() and "…" not in file.getvalue()


def test_shards_count_their_bytes(clock, capsys, tmp_path, monkeypatch):
    import json

    import torch
    from safetensors.torch import save_file

    from sanbu.interop import shards

    names = {f"t{number}": f"part-{number}.safetensors" for number in range(4)}
    for name, file in names.items():
        save_file({name: torch.zeros(1000)}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    read = shards.read_tensors

    def slowly(file):
        clock.now += 15
        return read(file)

    monkeypatch.setattr(shards, "read_tensors", slowly)
    assert set(read_indexed(tmp_path)) == set(names)
    size = (tmp_path / "part-0.safetensors").stat().st_size
    kilo = lambda count: f"{count * size / 1000:.1f} kB"
    assert capsys.readouterr().err.splitlines() == [
        f"reading weights  {kilo(1)} of {kilo(4)}  45 s left",
        f"reading weights  {kilo(3)} of {kilo(4)}  15 s left",
        f"reading weights  {kilo(4)} of {kilo(4)}  took 1 min 0 s",
    ]


def test_a_program_whose_output_goes_into_pipes():
    """The lines go to standard error, where the result is not."""
    code = (
        "import time\nfrom types import SimpleNamespace\nfrom sanbu import progress\nnow = [0.0]\n"
        "progress.time = SimpleNamespace(monotonic=lambda: now[0])\n"
        "with progress.progress_rows('evaluating', 4) as say:\n"
        "    for _ in range(4):\n        now[0] += 15\n        say(1)\nprint('result')\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout == "result\n" and time.monotonic() - began < 30
    assert done.stderr.splitlines() == [
        "evaluating  1 of 4  45 s left",
        "evaluating  3 of 4  15 s left",
        "evaluating  4 of 4  took 1 min 0 s",
    ]


def test_a_pipeline_says_which_stage_it_trains(capsys, monkeypatch, tmp_path):
    done = SimpleNamespace(finished=lambda: True)
    recipe = SimpleNamespace(change=lambda *overrides: None)
    monkeypatch.setattr(stages, "train", lambda *given, **more: done)
    monkeypatch.setattr(stages.Run, "open", lambda place: done)
    (tmp_path / "base").mkdir()
    for name in ("recipe.json", "finished.json"):
        (tmp_path / "base" / name).write_text("{}")
    chosen = [stages.Stage(name, lambda folder: recipe) for name in ("base", "sft", "ppo")]
    stages.train_stages(chosen, tmp_path, [])
    assert capsys.readouterr().err.splitlines() == ["stage 2 of 3: sft", "stage 3 of 3: ppo"]
    stages.train_stages(chosen, tmp_path, [], watchers=[])
    assert capsys.readouterr().err == ""


def test_an_objective_is_evaluated_with_progress(monkeypatch):
    said = []
    monkeypatch.setattr(held_out, "progress_rows", lambda what, total: nullcontext(said.append))
    data = SimpleNamespace(held_out_rows=150, held_out=lambda start, size: {})
    monkeypatch.setattr(held_out, "losses", lambda objective, round: [])
    built = lambda thing: SimpleNamespace(build=lambda: thing)
    recipe = SimpleNamespace(data=built(data), objective=built(None))
    found = held_out.evaluate_objective(SimpleNamespace(models={}, recipe=recipe))
    assert found["rows"] == 150 and said == [64, 64, 22]
