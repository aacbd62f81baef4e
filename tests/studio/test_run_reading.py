"""What the tab Runs reads: metrics that grow, damaged runs, states, and one run's data at a time."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from starlette.datastructures import QueryParams

gr = pytest.importorskip("gradio")

from sanbu.studio import run_folders  # noqa: E402
from sanbu.studio.metrics import Metrics, Reader, Readers, curves, figures_of, line_of, smoothed  # noqa: E402
from sanbu.studio.run_folders import find_runs, opened, progress_text, state_of, stopped_runs  # noqa: E402
from sanbu.studio.runs import Choices, Shown, updates  # noqa: E402


def written(path, *rows):
    with path.open("a", encoding="utf-8") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return path


def row(step, loss, seconds=1.0, **more):
    return {"step": step, "loss": loss, "time/seconds": seconds, **more}


@pytest.fixture
def root(tmp_path, runs):
    """Two runs: `new` is newer than `old`, and their figures differ."""
    for number, name in enumerate(("old", "new")):
        shutil.copytree(runs[1], tmp_path / name)
        os.utime(tmp_path / name / "recipe.json", (number + 1, number + 1))
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(row(1, 5.0 + number)) + "\n")
    return tmp_path


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_only_new_lines_are_read_and_a_rewritten_file_is_read_again(tmp_path):
    path = written(tmp_path / "m.jsonl", row(1, 3.0), row(2, 2.0))
    reader = Reader(path)
    assert [each["step"] for each in reader.read().rows] == [1, 2]
    first = reader.rows[0]
    written(path, row(3, 1.0))
    assert [each["step"] for each in reader.read().rows] == [1, 2, 3] and reader.rows[0] is first
    path.write_text(json.dumps(row(1, 9.0)) + "\n")
    assert [each["loss"] for each in reader.read().rows] == [9.0]
    path.write_text("".join(json.dumps(row(step, 7.0)) + "\n" for step in range(1, 9)))
    assert [each["loss"] for each in reader.read().rows] == [7.0] * 8


@pytest.mark.parametrize(
    "torn",
    ['{"step": 2, "lo', "", "5", "[]", "null", '{"loss": 1}', '{"step": "2"}', '{"step": true}', "[" * 100_000,
     '{"step": ' + "9" * 5000 + "}", "\udce4".encode("utf-8", "surrogateescape").decode("latin-1")],
)  # fmt: skip
def test_a_torn_line_is_numbered_and_the_others_are_read(torn, tmp_path):
    path = written(tmp_path / "m.jsonl", row(1, 3.0), torn, row(3, 1.0))
    found = Readers().read(path)
    assert [each["step"] for each in found.rows] == [1, 3] and found.torn == ((2,) if torn else ())


def test_bytes_that_are_no_text_are_a_torn_line(tmp_path):
    path = written(tmp_path / "m.jsonl", row(1, 3.0))
    path.write_bytes(path.read_bytes() + b"\xff\xfe\x00\n" + json.dumps(row(3, 1.0)).encode())
    found = Readers().read(path)
    assert [each["step"] for each in found.rows] == [1, 3] and found.torn == (2,) and not found.cut


def test_a_last_line_that_is_being_written_is_not_torn_yet(tmp_path):
    path = written(tmp_path / "m.jsonl", row(1, 3.0))
    reader = Reader(path)
    with path.open("a") as file:
        file.write('{"step": 2, "loss"')
    assert (len(reader.read().rows), reader.read().torn, reader.read().cut) == (1, (), 2)
    with path.open("a") as file:
        file.write(": 2.5}\n")
    assert reader.read() == Metrics([row(1, 3.0), {"step": 2, "loss": 2.5}])


def test_an_empty_curve_has_axes_of_numbers():
    empty = curves([("a", Metrics())], "loss")
    whole = curves([("a", Metrics([row(1, 2.0)]))], "loss")
    assert list(empty.dtypes[:2]) == list(whole.dtypes[:2]) == [float, float] and not len(empty)
    found = gr.LinePlot(x="x", y="value", color="figure").postprocess(empty)
    assert found.datatypes == {"x": "quantitative", "value": "quantitative", "figure": "nominal"}


def test_smoothing_is_the_average_with_weights_that_fall_by_the_smoothing():
    values = np.random.default_rng(0).normal(size=9)
    weights = [0.75 ** (8 - place) for place in range(9)]
    assert smoothed(values, 0.75)[8] == pytest.approx(np.average(values, weights=weights))
    assert (smoothed(values, 0.0) == values).all() and not len(smoothed(values[:0], 0.9))
    assert smoothed(np.full(5, 3.0), 0.9) == pytest.approx(np.full(5, 3.0))


def test_a_time_axis_adds_up_the_seconds_of_all_rounds():
    rows = [row(1, 3.0, 0.5), {"step": 2, "time/seconds": 2.0}, row(3, 1.0, 0.25), row(4, float("nan"))]
    xs, ys = line_of(Metrics(rows), "loss", time=True)
    assert xs.tolist() == [0.5, 2.75] and ys.tolist() == [3.0, 1.0]
    assert line_of(Metrics(rows), "loss")[0].tolist() == [1, 3]


def test_lines_over_one_another_bear_the_names_of_their_runs():
    one, other = Metrics([row(1, 3.0, held=1.0)]), Metrics([row(1, 2.0, **{"held_out/loss": 4.0})])
    found = curves([("a", one), ("b", other)], "loss")
    assert set(found["figure"]) == {"a: loss", "b: loss", "b: held_out/loss"}
    assert figures_of(other) == ["loss", "time/seconds"] and figures_of(Metrics()) == ["loss"]


def test_a_long_curve_is_thinned_and_keeps_its_last_point():
    long = Metrics([row(step, 1 / step) for step in range(1, 10_001)])
    found = curves([("a", long)], "loss")
    assert len(found) < 900 and found["x"].max() == 10_000


# -- folders ----------------------------------------------------------------------------------------------------------


def test_runs_are_found_newest_first_in_folders_of_folders(root):
    (root / "group").mkdir()
    shutil.copytree(root / "old", root / "group" / "deep")
    os.utime(root / "group" / "deep" / "recipe.json", (9, 9))
    assert find_runs(root) == ["group/deep", "new", "old"]
    assert find_runs(root / "nothing") == []
    assert opened(root, "../" + root.name + "/old") is None and opened(root, "/etc") is None


def test_a_stopped_a_running_and_a_finished_run_are_told_apart(root):
    assert state_of(opened(root, "old")) == "finished"
    assert progress_text(opened(root, "old")).startswith("1 / ")
    (root / "old" / "finished.json").unlink()
    found = opened(root, "old")
    assert state_of(found) == "stopped"
    with FileLock(root / "old" / "run.lock"):
        assert state_of(found) == "running"
    assert state_of(found) == "stopped"
    assert progress_text(found).startswith("stopped at 1 of 8: loss 5")
    assert progress_text(found, "zh").startswith("已停止：第 1 步，共 8 步: loss 5")


def test_without_a_list_of_locks_a_run_that_wrote_lately_is_running(root, monkeypatch):
    monkeypatch.setattr(run_folders, "LOCKS", root / "none")
    (root / "old" / "finished.json").unlink()
    assert state_of(opened(root, "old")) == "running"
    os.utime(root / "old" / "metrics.jsonl", (1, 1))
    assert state_of(opened(root, "old")) == "stopped"


def damage(folder, how):
    if how == "no json":
        (folder / "recipe.json").write_text("{")
    elif how == "another format":
        (folder / "recipe.json").write_text('{"format": 99, "recipe": {}}')
    elif how == "a folder":
        (folder / "recipe.json").unlink()
        (folder / "recipe.json").mkdir()
    elif how == "no text":
        (folder / "recipe.json").write_bytes(b"\xff\xfe\x00")
    elif how == "metrics are a folder":
        (folder / "metrics.jsonl").unlink()
        (folder / "metrics.jsonl").mkdir()
    elif how == "a picture is none":
        (folder / "samples" / "step-1.png").write_text("no picture")


DAMAGES = ("no json", "another format", "a folder", "no text", "metrics are a folder", "a picture is none")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_run_is_one_line_and_harms_no_other(how, root):
    damage(root / "new", how)
    changed, shown = updates(root, Choices(run="new"), Shown())
    told = changed["progress"] + changed["texts"].value
    assert how == "a picture is none" or len(changed["progress"].splitlines()) == 1
    assert {"a picture is none": "step-1.png", "metrics are a folder": "metrics.jsonl"}.get(how, "new") in told
    assert find_runs(root) == ["new", "old"] or how == "a folder"
    changed, _ = updates(root, Choices(run="old", figure="loss"), shown)
    assert changed["progress"].startswith("1 / ") and "loss 5" in changed["progress"]
    assert stopped_runs(root) == []


# -- one run's data ---------------------------------------------------------------------------------------------------


def page(root, **chosen):
    """The tab as a browser holds it: `go` sends its choices and takes what changes."""
    held = SimpleNamespace(shown=Shown(), run=None, figure="loss", overlay=(), smoothing=0.0, axis="step")
    held.parts = {}

    def go(language="en", request=None, **changes):
        held.__dict__.update(changes)
        asked = Choices(held.run, held.figure, tuple(held.overlay), held.smoothing, held.axis)
        changed, held.shown = updates(root, asked, held.shown, language, request)
        for name, update in changed.items():
            held.parts[name] = update
            value = update.constructor_args.get("value") if isinstance(update, gr.Dropdown) else None
            if name in ("run", "figure", "overlay") and value is not None:
                setattr(held, name, value)
        return changed

    held.go = go
    return held


def test_what_is_shown_is_of_one_run_while_newer_runs_appear(root):
    held = page(root)
    held.go()
    assert held.run == "new" and "loss 6" in held.parts["progress"]
    shutil.copytree(root / "old", root / "newest")
    os.utime(root / "newest" / "recipe.json", (3, 3))
    assert find_runs(root)[0] == "newest"
    changed = held.go()
    assert held.run == "new" and changed.keys() == {"run", "overlay"} and changed["run"].choices[0][0] == "newest"
    held.go(run="old")
    assert "loss 5" in held.parts["progress"] and "name=gpt2" in held.parts["recipe"]
    shutil.rmtree(root / "old")
    held.go()
    assert held.parts["progress"] == f"There is no run 'old' in {root}" and held.parts["recipe"] == ""
    assert not len(held.parts["curve"].value["data"])


def test_nothing_is_sent_while_nothing_changes(root):
    held = page(root)
    held.go()
    assert held.go() == {} and held.go(figure="loss") == {}
    written(root / "new" / "metrics.jsonl", row(2, 1.25))
    changed = held.go()
    assert changed.keys() == {"curve", "progress"} and "loss 1.25" in changed["progress"]


def test_a_torn_line_is_named_with_its_file_and_its_run_is_shown(root):
    written(root / "old" / "metrics.jsonl", '{"step": 2', row(3, 2.5))
    held = page(root)
    held.go()
    held.go(run="old")
    first, second = held.parts["progress"].splitlines()
    assert "loss 2.5" in first and second == f"{root / 'old' / 'metrics.jsonl'}: line 2 cannot be read and is left out"
    held.go("zh", shown=replace(held.shown, progress=None))
    assert "第 2 行无法读取" in held.parts["progress"]


def test_no_runs_is_one_line(tmp_path):
    for language, text in (("en", "There are no runs in"), ("zh", "还没有运行")):
        changed, _ = updates(tmp_path, Choices(), Shown(), language)
        assert text in changed["progress"] and len(changed["progress"].splitlines()) == 1


def test_the_address_brings_the_choices_back(root):
    query = "run=old&figure=time/seconds&overlay=new&overlay=gone&smoothing=0.5&axis=time&tab=runs"
    held = page(root)
    held.go(request=SimpleNamespace(query_params=QueryParams(query), headers={}))
    assert (held.run, held.figure, held.overlay) == ("old", "time/seconds", ["new", "gone"])
    assert held.parts["smoothing"] == 0.5 and held.parts["axis"] == "time"
    assert f"There is no run 'gone' in {root}" in held.parts["progress"]


@pytest.mark.parametrize("query", ["smoothing=x&axis=y&run=nowhere", "smoothing=nan", "smoothing=9&run=../old"])
def test_an_address_that_is_not_allowed_is_harmless(query, root):
    held = page(root)
    held.go(request=SimpleNamespace(query_params=QueryParams(query), headers={}))
    assert 0 <= held.parts["smoothing"] < 1 and held.parts["axis"] == "step"


def test_the_ranks_of_a_run_in_many_processes_and_the_one_that_is_late(root):
    def rank(seconds, waiting):
        rest = {"steps": 4, "rows": 8, "memory_bytes": 5 * 10**6, "flops": 10.0**12, "peak_flops": 10**12}
        return {"machine": "a", "seconds": seconds, "waiting": waiting, **rest}

    line = json.dumps({"step": 4, "ranks": [rank(4.0, 3.0), rank(4.0, 3.0), rank(4.0, 0.0)]})
    (root / "new" / "ranks.jsonl").write_text(f'{line}\n{{"step": 8, "ra')
    changed, shown = updates(root, Choices(), Shown())
    table = changed["ranks"]
    assert table.visible and [row[:5] for row in table.value["data"]] == [
        ["0", "a", "2", "75 %", "25 %"], ["1", "a", "2", "75 %", "25 %"], ["2", "a", "2", "0 %", "25 %"],
    ]  # fmt: skip
    assert table.value["headers"][4] == "MFU" and "rank 2 on a computes 4.0 times" in changed["progress"]
    assert "ranks" not in updates(root, Choices("new"), shown)[0]
    changed, _ = updates(root, Choices("old"), shown)
    assert not changed["ranks"].visible
