"""What the verbs print fits 60, 80, 100 and 120 columns: nothing is cut, no line is longer, what is needed is there."""

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console as Screen
from typer.testing import CliRunner

from sanbu import recipes
from sanbu.cli import talk
from sanbu.cli.main import app
from sanbu.display.health import GAUGES, panel
from sanbu.evaluation import compare, measure
from sanbu.evaluation.picture_metrics import Row
from sanbu.evaluation.report import COLUMNS, table
from tests.cli.common import chat_run

WIDTHS = (60, 80, 100, 120)
FIGURES = {"kid": 0.00151, "frechet": 0.23, "precision": 0.94, "recall": 0.87, "density": 0.9, "coverage": 0.91}
MODEL = {
    **FIGURES, "copy_rate": 0.07, "kid_error": 0.0002, "class_variation": 0.12, "bits_per_dimension": 2.15, "nfe": 64,
    "ms_per_image": 0.049, "ms_alone": 1.6, "training_cpu_seconds": 63.0, "memory_mb": 812.0, "parameters": 1_625_185,
    "pictures": 581, "spread": {"kid": 0.00053, "recall": 0.01, "coverage": 0.02},
}  # fmt: skip
ROWS = [
    Row("real half", "floor", **FIGURES, copy_rate=1.0),
    Row("noise", "floor", **FIGURES | {"kid": 0.2, "coverage": 0.0}, copy_rate=0.0),
    *(Row(name, "refinement", **MODEL) for name in ("flow, Heun, 9 steps", "consistency, 2 steps", "pixelcnn")),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return chat_run(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def said(monkeypatch, tmp_path):
    """A function that runs a verb at a width in an empty folder and checks every line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))

    def call(width, *arguments):
        monkeypatch.setenv("COLUMNS", str(width))
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exit_code == 0, done.exception
        return fitting(done.stdout, width)

    return call


def fitting(text, width):
    assert "…" not in text and text.strip()
    assert [line for line in text.splitlines() if cell_len(line) > width] == []
    return text


@pytest.mark.parametrize("width", WIDTHS)
def test_list_and_show(said, width):
    listed = said(width, "list")
    for name, text in recipes.describe().items():
        assert f"\n{name} " in "\n" + listed and "".join(text.split()) in "".join(listed.split())
    shown = said(width, "show", "gpt2")
    assert "\nmemory to train: " in shown
    assert "\nschedule.steps=900" in shown and "\nparameters: 2,197,632" in shown
    fields = [line.split("  #")[0] for line in shown.split("\n\n")[0].splitlines() if not line.strip().startswith("#")]
    found = recipes.gpt2().change(*(field.strip() for field in fields))  # each can be given back
    assert found == recipes.gpt2().resolve()
    assert ("name=gpt2\n    # str; name" in shown) == (
        width == 60
    )  # a comment has room beside its field, or is below it
    words = " ".join(shown.replace("#", " ").split())
    assert "rows per forward pass (gradient accumulation); does not change the result" in words


@pytest.mark.parametrize("width", WIDTHS)
def test_show_lists_the_stages_of_a_pipeline(said, width):
    shown = said(width, "show", "assistant")
    names = [line.split()[0] for line in shown.splitlines() if line[0] not in " TA"]
    assert names == ["base", "sft", "reward", "ppo", "dpo"]


@pytest.mark.parametrize("width", WIDTHS)
def test_compare(said, width, monkeypatch):
    monkeypatch.setattr(compare, "compare_contest", lambda *given: ROWS)
    shown = said(width, "compare", "digits", "--run", "report")
    for row in ROWS:
        line = next(line for line in shown.splitlines() if line.startswith(row.name))
        assert "1.51" in line or row.name == "noise"
        assert "0.91" in line or row.name == "noise"
        assert ("0.049" in line) == (not row.floor)
    assert "KID" in shown and "coverage" in shown and "ms/picture" in shown and "report/compare.html" in shown
    assert "more columns: wider terminal, or compare.html)" in shown
    assert ("NFE" in shown) == (width > 60) and ("parameters" in shown) == (width > 120)


def test_compare_shows_all_where_there_is_room():
    lines = [line.plain for line in table(ROWS).lines(300)]
    assert all(column.title.split()[-1] in lines[0] + lines[1] for column, _ in COLUMNS)
    assert "more column" not in lines[-1]
    narrow = fitting("\n".join(line.plain for line in table(ROWS).lines(34)), 34)
    assert narrow.count("ms/picture") == 3 and narrow.count("parameters") == 3  # a block per row has all columns


@pytest.mark.parametrize("width", WIDTHS)
def test_evaluate_assistants(said, width, run):
    import shutil

    places = [run.folder, *("a-run-with-a-rather-long-name", "another-run-with-a-long-name")]
    for place in places[1:]:
        shutil.copytree(run.folder, place)
    one = said(width, "evaluate", run.folder, "--questions", 2)
    assert "exact match" in one and "run\n" in one.split("exact match")[0]
    shown = said(width, "evaluate", *places, "--questions", 2)
    assert shown.count("exact match") == 2  # and its error
    names = [place for place in places[1:] if place in shown]
    assert names == places[1:]


@pytest.mark.parametrize("width", WIDTHS)
def test_evaluate_tasks(said, width, run, monkeypatch):
    row = {"task": "arc-challenge", "asked": 25, "shots": 7.25, "accuracy": 0.25, "error": 0.0125, "chance": 0.25}
    row |= {"normalised": 0.2612, "questions": 1172, "cut": 1003}
    found = {"rows": [row, row | {"task": "lambada", "asked": 0}], "prompts": {"lambada": "Once"}}
    monkeypatch.setattr(measure, "evaluate_tasks", lambda *given: found)
    shown = said(width, "evaluate", run.folder, "--tasks", "lambada")
    assert all(word in shown for word in ("run", "task", "shots", "accuracy", "7.2500", "0.2500", "arc-challenge"))
    assert ("cut" in shown) == (width >= 100) and ("or --json)" in shown) == (width < 100)


@pytest.mark.parametrize("width", WIDTHS)
def test_preview(said, width, run):
    chat = said(width, "preview", run.folder)
    assert "« It is" in chat and "taught" in chat
    pictures = said(width, "preview", "flow")
    words = " ".join(f"word{number}" for number in range(99))
    Path("a.txt").write_text(words)
    changes = ("data.tokenizer=byte", "data.path=a.txt", "data.context=128", "model.context=128", "data.validation=0")
    text = said(width, "preview", "gpt2", *changes, "--rows", 1)
    assert text.count("word") > 10
    assert "row 1: label" in pictures and "class 9" in pictures


@pytest.mark.parametrize("width", WIDTHS)
def test_rank_and_key(said, width, run):
    out = "rankings-of-the-answers-of-this-run.jsonl"
    ranked = said(width, "rank", run.folder, "--out", out, "--questions", 3, "-n", 2)
    assert "".join(ranked.split()) == f"{out}:4questions,0%oftheanswersright"
    assert len(said(width, "key", "ada").split()) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_health(width):
    row = {"step": 1200, **{gauge.name: 12345.678 for gauge in GAUGES}}
    file = io.StringIO()
    Screen(file=file, width=width, soft_wrap=True).print(panel([row]))  # as the console of training prints
    shown = fitting(file.getvalue(), width)
    assert "health at step 1,200" in shown and shown.count("12345.678") == len(GAUGES) and "-0.1 to 8" in shown
    assert shown.count("check") == len(GAUGES) - 1
    narrow = "\n".join(line.plain for line in panel([row]).lines(30))
    assert fitting(narrow, 30).count("12345.678") == len(GAUGES)


@pytest.mark.parametrize("width", WIDTHS)
def test_chat_side_by_side(width, monkeypatch):
    class Speaker:
        def __init__(self, name):
            self.name = name

        def answer(self, words, seed):
            yield "It is 7, and this answer is a long one, as-is-this-word-which-has-no-space-anywhere."

    monkeypatch.setenv("COLUMNS", str(width))
    names = ["sft", "a-run-with-a-rather-long-name", "base", "ppo"]
    file = io.StringIO()
    Screen(file=file, width=width).print(talk.answer_columns(list(map(Speaker, names)), ["It is " + "7" * 70] * 4))
    shown = fitting(file.getvalue(), width)
    assert shown.count("7") == 280 and all(name in shown for name in ("sft", "base", "ppo"))
    assert ("─" in shown) == (width >= 80)
