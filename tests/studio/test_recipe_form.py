"""What the form of the tab Recipes means: arguments and table as one truth, the command line, the training process."""

import shlex
import shutil
import signal
import sys
from types import SimpleNamespace

import pytest
from filelock import FileLock
from starlette.datastructures import QueryParams

gr = pytest.importorskip("gradio")

from sanbu.config import ConfigError, SanbuError  # noqa: E402
from sanbu.studio import recipe_form, recipes, training_process  # noqa: E402
from sanbu.studio.messages import Message, plain_assignment, told  # noqa: E402
from sanbu.studio.recipe_form import edits, make_recipe, rows, size_text, with_edits, words  # noqa: E402
from sanbu.studio.run_folders import opened, stopped_runs  # noqa: E402
from sanbu.studio.training_process import TrainingProcess, command_line, new_place, resume_words  # noqa: E402


def edited(table, **values):
    return [[path, values.get(path.replace(".", "__"), value), *rest] for path, value, *rest in table]


# -- arguments and table ----------------------------------------------------------------------------------------------


def test_what_is_typed_counts_and_the_table_shows_what_it_makes():
    made = make_recipe("gpt2", words("schedule.steps=7 'model.width=66'"))
    assert (made.schedule.steps, made.model.width) == (7, 66)
    assert ["schedule.steps", "7"] in [row[:2] for row in rows(made)]


def test_an_edited_cell_becomes_an_argument_and_takes_the_place_of_one():
    shown = rows(make_recipe("gpt2", ["schedule.steps=7", "size=355m"]))
    changes = edits(edited(shown, schedule__steps="９", model__dropout="0.5"), shown)
    assert changes == {"schedule.steps": "9", "model.dropout": "0.5"}
    given = with_edits("gpt2", ["schedule.steps=7", "size=355m"], changes)
    assert given == ["size=355m", "model.dropout=0.5", "schedule.steps=9"]
    assert make_recipe("gpt2", given).schedule.steps == 9


def test_an_edit_back_to_the_own_value_takes_the_argument_out():
    own = dict(row[:2] for row in rows(make_recipe("gpt2", [])))["schedule.steps"]
    shown = rows(make_recipe("gpt2", ["schedule.steps=7"]))
    changes = edits(edited(shown, schedule__steps=own), shown)
    assert changes == {"schedule.steps": own} and with_edits("gpt2", ["schedule.steps=7"], changes) == []


def test_a_table_that_is_older_than_what_is_typed_is_no_edit():
    """The table still shows 900 steps while 7 are typed: only cells that a person has edited since count."""
    shown = rows(make_recipe("gpt2", []))
    assert edits(shown, shown) == {}
    assert with_edits("gpt2", ["schedule.steps=7"], edits(shown, shown)) == ["schedule.steps=7"]
    assert edits([*shown, ["model.other", "3"]], shown) == {}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("schedule.steps＝７", ["schedule.steps=7"]),
        ("schedule.steps=１００　model.dropout=０．５", ["schedule.steps=100", "model.dropout=0.5"]),
        ("data.shape=［３,３２,３２］", ["data.shape=[3,32,32]"]),
        ("data.path=数据１.txt", ["data.path=数据１.txt"]),
        ("'data.path=a b' x=#1", ["data.path=a b", "x=#1"]),
        ("", []),
    ],
)
def test_digits_in_full_width_are_digits_and_names_stay(typed, meant):
    assert words(typed) == meant


def test_an_unclosed_quotation_is_one_line():
    with pytest.raises(SanbuError, match="No closing quotation"):
        words("'a")
    assert plain_assignment("nothing") == "nothing"


# -- the form ---------------------------------------------------------------------------------------------------------


def form(root, language="en", query="", **values):
    now = {"name": "gpt2", "arguments": "", "folder": "mine", "suggested": "", "table": [], "shown": [], **values}
    headers = {"accept-language": {"en": "en-US", "zh": "zh-HK"}[language]}
    return recipes.form_updates(root, now, SimpleNamespace(query_params=QueryParams(query), headers=headers))


def test_the_command_line_is_what_start_runs_and_a_shell_reads_it_so(tmp_path, monkeypatch):
    typed = "'data.path=a b.txt' schedule.steps=7"
    line = form(tmp_path, arguments=typed)["command"]
    begun = []
    monkeypatch.setattr(training_process.subprocess, "Popen", lambda words, **_: begun.append(words))
    TrainingProcess(tmp_path).start("gpt2", words(typed), "mine", 7)
    assert shlex.split(line)[0] == "sanbu" and begun == [[sys.executable, "-m", "sanbu", *shlex.split(line)[1:]]]
    assert shlex.split(line)[1:] == ["train", "gpt2", *words(typed), "--run", str(tmp_path.resolve() / "mine")]


def test_an_error_is_said_at_once_and_nothing_would_start(tmp_path):
    found = form(tmp_path, arguments="model.layrs=1")
    assert "did you mean 'layers'" in found["problem"].value and found["command"] == "" and "table" not in found
    found = form(tmp_path, "zh", arguments="model.layrs=1")
    assert "没有字段 'layrs'" in found["problem"].value and "是否指 'layers'？" in found["problem"].value


def test_a_table_that_shows_the_recipe_is_not_sent_again(tmp_path):
    found = form(tmp_path)
    assert "table" not in form(tmp_path, table=found["table"]) and not found["problem"].visible
    assert "table" in form(tmp_path, table=found["table"], arguments="schedule.steps=7")


def test_a_folder_of_ones_own_stays_and_a_suggested_one_follows_the_recipe(tmp_path):
    assert "folder" not in form(tmp_path, folder="mine", suggested="gpt2-101010")
    assert form(tmp_path, folder="", suggested="")["folder"].startswith("gpt2-")
    assert form(tmp_path, name="flow", folder="gpt2-1", suggested="gpt2-1")["folder"].startswith("flow-")
    assert "folder" not in form(tmp_path, folder="", suggested="gpt2-1")


def test_the_address_brings_recipe_arguments_and_folder_back(tmp_path):
    found = form(tmp_path, query="recipe=flow&arguments=schedule.steps%3D7&folder=mine", shown=None, folder="")
    assert (found["name"], found["arguments"], found["folder"]) == ("flow", "schedule.steps=7", "mine")
    assert "train flow schedule.steps=7" in found["command"]
    assert form(tmp_path, query="recipe=nothing", shown=None)["name"] in recipes.recipes.RECIPES


def test_the_size_is_that_of_sanbu_show():
    from sanbu.memory.cost import cost

    small = ("data.tokenizer=byte", "data.context=32", "model.context=32", "model.layers=1", "model.width=16",
             "model.heads=2", "schedule.batch=2")  # fmt: skip
    text = size_text("gpt2", small, "en")
    assert text.startswith(f"{cost(make_recipe('gpt2', small)).parameters:,} parameters; training needs about ")
    assert "weights" in text and "MB" in text and "权重" in size_text("gpt2", small, "zh")


def test_the_size_is_counted_once_for_changes_that_need_no_memory(monkeypatch):
    import sanbu.memory.training

    made = []
    real = sanbu.memory.training.estimate
    monkeypatch.setattr(sanbu.memory.training, "estimate", lambda *given: made.append(1) or real(*given))
    recipe_form.counted_once.cache_clear()
    small = ["data.tokenizer=byte", "data.context=32", "model.context=32", "model.layers=1", "schedule.batch=2"]
    texts = {size_text("gpt2", [*small, f"schedule.{change}"], "en")[:40] for change in ("steps=7", "seed=3", "keep=4")}
    assert len(made) == 1 and len(texts) == 1
    assert size_text("gpt2", [*small, "schedule.batch=4"], "en") and len(made) == 2


def test_a_size_that_cannot_be_counted_is_one_line(monkeypatch):
    def fails(name, arguments):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(recipe_form, "counted", fails)
    assert size_text("gpt2", (), "en") == "cannot be counted: two"
    assert size_text("gpt2", (), "zh").startswith("无法计算：")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["..", "../outside", "", ".", "/etc/mine", "a/../../b"])
def test_a_folder_outside_is_refused(folder, tmp_path):
    with pytest.raises(Message, match="lies outside") as caught:
        new_place(tmp_path / "root", folder)
    assert "之外" in told(caught.value, "zh")


def test_a_folder_that_is_taken_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.txt").write_text("mine")
    with pytest.raises(Message, match="run is already a run; choose another folder"):
        new_place(tmp_path, "run")
    with pytest.raises(Message, match="files already holds other files"):
        new_place(tmp_path, "files")
    assert new_place(tmp_path, "a/b") == tmp_path.resolve() / "a" / "b"


@pytest.mark.parametrize("typed", ["model.layrs=1", "schedule.steps=x", "schedule.steps=-1", "model=lama", "alone"])
def test_common_errors_are_in_chinese(typed):
    with pytest.raises(ConfigError) as caught:
        make_recipe("gpt2", words(typed))
    text = told(caught.value, "zh")
    assert told(caught.value, "en") == str(caught.value) and text.startswith("出错：")
    assert not any(phrase in text for phrase in ("did you mean", "no field", "should be", "given", "unknown kind"))


# -- the process ------------------------------------------------------------------------------------------------------


class Process:
    """A process that has ended with a code, or runs (None)."""

    def __init__(self, code=None):
        self.code, self.signals = code, []

    def poll(self):
        return self.code

    def send_signal(self, number):
        self.signals.append(number)


@pytest.fixture
def trained(tmp_path, runs):
    """A run of 8 steps that was stopped after 5, and a training that it belongs to."""
    folder = tmp_path / "mine"
    shutil.copytree(runs[1], folder)
    (folder / "finished.json").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:5]))
    latest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    latest.rename(latest.with_name("step-00000005"))
    training = TrainingProcess(tmp_path)
    arguments = training_process.train_words("gpt2", ["schedule.steps=8"], folder)
    training.training = training_process.Training("mine", 8, arguments)
    return training


def test_a_stopped_training_says_where_and_stays_so(trained):
    trained.process = Process()
    assert trained.status()[0].startswith("mine: 5 / 8: loss")
    trained.stop()
    assert trained.process.signals == [signal.SIGINT] and "stopping after" in trained.status()[0]
    trained.process.code = 0
    text, part = trained.status()
    assert text.startswith("mine: stopped at 5 of 8; resume with: sanbu train gpt2 --run ") and part == 5 / 8
    assert trained.status() == (text, part) and "done" not in text
    assert trained.status("zh")[0].startswith("mine：已停止：第 5 步，共 8 步；继续训练：sanbu train")


def test_a_finished_a_failed_and_a_killed_training_are_told_apart(trained, tmp_path):
    (tmp_path / "studio.log").write_text("one\nloss became NaN\n")
    trained.process = Process(1)
    assert trained.status()[0] == "mine: failed at 5 of 8 with exit code 1: loss became NaN"
    trained.process = Process(-9)
    assert trained.status()[0].startswith("mine: killed by signal 9 at 5 of 8; resume with: ")
    (tmp_path / "mine" / "finished.json").write_text("{}")
    trained.process = Process(0)
    assert trained.status()[0].startswith("mine: done. 5 / 8: loss") and trained.status()[1] == 1.0
    shutil.rmtree(tmp_path / "mine")
    trained.process = Process(2)
    assert trained.status() == ("mine: not started: loss became NaN", 0.0)


def test_only_a_stopped_run_is_resumed_and_with_its_own_recipe(trained, tmp_path, monkeypatch):
    place = str((tmp_path / "mine").resolve())
    assert stopped_runs(tmp_path) == ["mine"]
    assert resume_words(opened(tmp_path, "mine")) == ("train", "gpt2", "--run", place, "--resume")
    with FileLock(tmp_path / "mine" / "run.lock"):
        assert stopped_runs(tmp_path) == []
        with pytest.raises(Message, match="mine cannot be resumed: it is still training"):
            trained.resume("mine")
    with pytest.raises(Message, match="Choose a stopped run"):
        trained.resume(None)
    with pytest.raises(Message, match="gone cannot be resumed: it is not a run") as caught:
        trained.resume("gone")
    assert told(caught.value, "zh") == "gone 无法继续：不是一个运行"
    monkeypatch.setattr(training_process.subprocess, "Popen", lambda words, **_: Process())
    trained.resume("mine")
    assert trained.training.steps == 8 and command_line(trained.training.arguments).endswith("--resume")
    with pytest.raises(Message, match="mine is still training; stop it first"):
        trained.start("gpt2", [], "other", 9)


def test_a_stopped_run_of_another_name_is_resumed_by_its_folder(trained, tmp_path):
    from dataclasses import replace

    found = opened(tmp_path, "mine")
    other = replace(found, run=SimpleNamespace(recipe=found.run.recipe.change(name="my own")))
    place = str((tmp_path / "mine").resolve())
    assert resume_words(other) == ("train", place, "--run", place, "--resume")


def test_a_reason_stays_until_the_next_button():
    def refuse():
        raise Message("nothing_runs")

    answer = recipes.answered(refuse, (3, ""), None)
    assert answer == (4, "No training is running") and recipes.answered(lambda: None, answer, None) == (5, "")


def test_an_empty_bar_and_an_empty_list():
    assert 'value="0.000000"' in recipes.progress_bar(0.0)
    assert recipes.stopped_menu([], "gone").value is None and recipes.stopped_menu(["b", "a"], "a").value == "a"
    assert recipes.stopped_menu(["b", "a"], "gone").value == "b"
    assert recipes.cells([["a", None], ["b", 7]]) == [["a", ""], ["b", "7"]] and recipes.cells(None) == []
