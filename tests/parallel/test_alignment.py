"""Preference and policy objectives over several processes: rollouts are divided, and the steps are those of one."""

import json

import pytest

from sanbu.loop import train
from sanbu.machine import decide
from sanbu.parallel.divide import Divided
from sanbu.parallel.layout import Layout
from sanbu.parallel.world import join
from sanbu.recipes import make
from sanbu.training import Training
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import check, recipe_of

COMMON = [
    "schedule.steps=3", "schedule.batch=4", "schedule.micro_batch=2", "schedule.evaluate_rows=4", "machine.threads=1",
    "machine.device=cpu", "machine.precision=float32",
]  # fmt: skip
BASE = ["model.layers=2", "model.heads=2", "model.width=16", "data.tokenizer.vocabulary=300", "strategy.max_tokens=4"]
SGD = ["optimizer=sgd", "optimizer.learning_rate=0.1", "optimizer.clip=1.0"]
CHECKED = 'objective.rewards=[{"kind":"checked"}]'
POLICY = ["objective.epochs=2", "strategy.max_tokens=4", "data.answer=4", CHECKED]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pairs of answers, and a small base run."""
    folder = tmp_path_factory.mktemp("alignment")
    (folder / "text.txt").write_text("It is 3, and what is 4? " * 500)
    recipe, rest = make("base", [f"path={folder / 'text.txt'}", *COMMON, *BASE])
    train(recipe.change(*rest), folder / "base", watchers=[])
    answers = [f"It is {n}." for n in range(80)]
    pairs = [{"prompt": f"{text}?", "chosen": text, "rejected": "No.", "answer": text} for text in answers]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return folder


def known(recipe):
    """The table of reference log-probabilities, and how often the reference was called for it."""
    with join(recipe.layout, "cpu") as world:
        calls, build = [], Divided.prepare

        def counting(self, models, *given):
            build(self, models, *given)
            models["reference"].register_forward_pre_hook(lambda *_: calls.append(1))

        Divided.prepare = counting
        training = Training(recipe, decide(recipe.machine), world)
        Divided.prepare = build
        return {name: table.tolist() for name, table in training.known.items()}, len(calls)


@pytest.mark.parametrize("layout", [{}, {"zero": 3}], ids=str)
def test_reference_log_probabilities_are_divided(place, layout):
    given = [f"sft={place / 'base'}", f"path={place / 'pairs.jsonl'}", *COMMON, "schedule.steps=100"]
    recipe = recipe_of("dpo", *given)
    one, calls = known(recipe)
    assert one and len(next(iter(one.values()))) > 60
    for found, part in run_processes(2, known, recipe.change(layout=Layout(**layout))):
        assert found == one and part == -(-calls // 2)


CASES = {"dpo": [], "ppo": POLICY, "grpo": POLICY}


@pytest.mark.parametrize("layout", [{}, {"zero": 3}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_alignment_over_two_processes(place, name, layout):
    given = [f"sft={place / 'base'}", f"path={place / 'pairs.jsonl'}"]
    check(layout, 2, name, *given, *COMMON, *SGD, *CASES[name])


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_answers_of_unequal_length_with_divided_weights(place, name):
    """Each rank makes as many calls of the model as its longest answer needs, and none waits for another's."""
    given = [f"sft={place / 'base'}", f"path={place / 'pairs.jsonl'}", *COMMON, *SGD, *POLICY]
    one_row = ["schedule.batch=2", "schedule.micro_batch=1", "objective.parts=1"]
    given += [*one_row, "strategy.max_tokens=120", "data.answer=120"]
    check({"zero": 3}, 2, name, *given)


@pytest.mark.parametrize("layout", [{}, {"zero": 3}], ids=str)
@pytest.mark.parametrize("rows", [1, 3])
def test_turns_that_cannot_be_divided_equally(place, rows, layout):
    """Updates of 3 rows, as groups of equal rewards that are dropped leave them, and of fewer rows than ranks."""
    given = [f"sft={place / 'base'}", f"path={place / 'pairs.jsonl'}", *COMMON, *SGD, *POLICY]
    given += ["schedule.batch=4", "schedule.micro_batch=1", "objective.parts=4", f"objective.samples={rows}"]
    check(layout, 2, "ppo", *given)
