"""Evaluation and sampling over several processes: the same results as of one, and only the first one prints."""

import contextlib
import io
import json
import sys

import pytest

from sanbu.cli.main import main
from sanbu.config import SanbuError
from sanbu.evaluation.held_out import evaluate_objective
from sanbu.loop import train
from sanbu.parallel.sharing import by_first, over_ranks, sharing
from sanbu.recipes import make
from sanbu.run import Run
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import TEXT, recipe_of

SMALL = ["machine.device=cpu", "machine.precision=float32", "machine.threads=1", "schedule.steps=2"]


def squares(count):
    with sharing() as world:
        done = []
        found = over_ranks(range(count), lambda number: done.append(number) or number * number)
        return found, done, by_first(lambda: {"rank": world.rank})


def test_every_process_gets_all_results_and_does_its_part():
    for rank, (found, done, first) in enumerate(run_processes(3, squares, 7)):
        assert found == [0, 1, 4, 9, 16, 25, 36] and done == list(range(rank, 7, 3)) and first == {"rank": 0}


def trouble(where):
    def work(number):
        if number == where:
            raise SanbuError("no such row")
        return number

    with sharing():
        try:
            over_ranks(range(4), work)
        except SanbuError as error:
            return str(error)
    return ""


def test_an_error_of_one_process_is_raised_in_all():
    assert run_processes(2, trouble, 3) == ["no such row"] * 2


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text") / "run"
    train(recipe_of("gpt2", *SMALL, *TEXT, "strategy.max_tokens=4"), folder, watchers=[])
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "run"
    recipe, rest = make("vae", [*SMALL, "model.width=8", "schedule.batch=8"])
    train(recipe.change(*rest), folder, watchers=[])
    return folder


def verb(arguments):
    """What a verb prints as JSON, and how many samples this process drew."""
    drawn, drafts = [], Run.drawing

    def counting(self, *given, **named):
        drawing = drafts(self, *given, **named)
        follow = drawing.follow
        object.__setattr__(drawing, "follow", lambda: drawn.append(1) or follow())
        return drawing

    Run.drawing, sys.argv, said = counting, ["sanbu", *arguments], io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as end:
        main()
    return said.getvalue() if not end.value.code else "failed", len(drawn)


def check(arguments):
    """A verb in two processes prints, once, what it prints in one."""
    ((one, parts),) = run_processes(1, verb, arguments)
    (first, mine), (second, theirs) = run_processes(2, verb, arguments)
    assert second == "" and mine + theirs == parts and (not parts or theirs)
    return json.loads(one), json.loads(first)


def test_texts_are_drawn_by_all(text):
    one, two = check(["generate", str(text), "-p", "It", "-n", "250", "--json"])
    assert one == two and len(one["samples"]) == 250


def test_pictures_are_drawn_by_all_and_written_once(pictures, tmp_path):
    places = [tmp_path / "one", tmp_path / "two"]
    for processes, place in enumerate(places, 1):
        run_processes(processes, verb, ["generate", str(pictures), "-n", "210", "--out", str(place), "--json"])
    one, two = ({path.name: path.read_bytes() for path in place.iterdir()} for place in places)
    assert one == two and len(one) >= 210


def test_held_out_text_is_measured_by_all(text):
    one, two = check(["evaluate", str(text), "--json"])
    assert one == two and one["tokens"] > 1000


def objective(folder):
    with sharing():
        return evaluate_objective(Run.open(folder))


def test_the_objective_on_held_out_rows(pictures):
    (one,) = run_processes(1, objective, pictures)
    assert run_processes(2, objective, pictures) == [one, one] and one["rows"] > 100


def test_a_few_shot_task_is_measured_by_all(text, tmp_path):
    rows = [{"question": f"{n}?", "choices": ["Y", "N"], "answer": n % 2} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    about = {"name": "even", "kind": "choice", "file": "rows.jsonl", "prompt": "{question}"}
    (tmp_path / "even.json").write_text(json.dumps(about))
    task = ["--tasks", str(tmp_path / "even.json"), "--folder", str(tmp_path), "--shots", "0,1"]
    one, two = check(["evaluate", str(text), *task, "--json"])
    assert one == two


def test_runs_are_compared_by_all(pictures, tmp_path):
    reports = []
    for processes in (1, 2):
        place = tmp_path / str(processes)
        found = run_processes(processes, verb, ["compare", str(pictures), "--run", str(place), "--json"])
        reports.append(json.loads((place / "compare.json").read_text()))
        assert [said != "" for said, _ in found] == [True, False][:processes]
    for one, two in zip(*(each["rows"] for each in reports), strict=True):
        assert {name: one[name] for name in one if "ms_" not in name} == {
            name: two[name] for name in two if "ms_" not in name
        }
