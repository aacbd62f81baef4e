"""Rows that ranks divide: scores of answers, and the looks at held-out rows during training."""

import pytest
import torch

from sanbu.machine import decide
from sanbu.parallel.layout import Layout
from sanbu.parallel.rows import over_parts, over_rows
from sanbu.parallel.world import join
from sanbu.training import Training
from tests.parallel.processes import run_processes
from tests.parallel.test_alignment import COMMON, POLICY
from tests.parallel.test_alignment import place as place
from tests.parallel.test_parity import TEXT, recipe_of


def rows(count):
    """Parts of unequal size; the number of calls of this rank."""
    with join(Layout(data=3), "cpu") as world:
        calls = []

        def work(part):
            calls.append(part)
            return {"row": torch.arange(part * 10, part * 10 + part % 3 + 1), "flag": torch.ones(part % 3 + 1) > 0}

        found = over_rows(world, work, range(count))
        return {name: tensor.tolist() for name, tensor in found.items()}, len(calls)


@pytest.mark.parametrize(("count", "each"), [(1, 1), (3, 1), (7, 3)])
def test_rows_come_in_the_order_of_one_process_after_equally_many_calls(count, each):
    expected = [part * 10 + n for part in range(count) for n in range(part % 3 + 1)]
    for found, calls in run_processes(3, rows, count):
        assert found == {"row": expected, "flag": [True] * len(expected)} and calls == each


def parts(count, alike):
    with join(Layout(data=2), "cpu") as world:
        calls = []
        return over_parts(world, lambda part: calls.append(part) or part * part, range(count), alike), calls


def test_parts_that_are_not_alike_are_done_by_every_rank():
    (first, mine), (second, theirs) = run_processes(2, parts, 7, 5)
    assert first == second == [n * n for n in range(7)]
    assert mine == [0, 2, 4, 5, 6] and theirs == [1, 3, 4, 5, 6]


def looks(recipe):
    """The held-out figures of a model at the start, and how often its rank called it."""
    with join(recipe.layout, "cpu") as world:
        training, calls = Training(recipe, decide(recipe.machine), world), []
        training.models["model"].register_forward_pre_hook(lambda *_: calls.append(1))
        return training.evaluate(), len(calls)


@pytest.mark.parametrize("layout", [{}, {"zero": 3}], ids=str)
def test_held_out_rows_are_divided_during_training(layout):
    cpu = ["machine.device=cpu", "machine.precision=float32", "machine.threads=1"]
    recipe = recipe_of("gpt2", *TEXT, *cpu, "schedule.evaluate_rows=36")  # 4 parts of 8 rows, and one of 4
    one, calls = looks(recipe)
    assert calls == 5
    for found, part in run_processes(2, looks, recipe.change(layout=Layout(**layout))):
        assert found == one and part == 3


def scored(recipe):
    """How often this rank called the reference for the answers of a round."""
    with join(recipe.layout, "cpu") as world:
        training, calls = Training(recipe, decide(recipe.machine), world), []
        training.models["reference"].register_forward_pre_hook(lambda *_: calls.append(1))
        training.advance()
        return len(calls)


@pytest.mark.parametrize("layout", [{}, {"zero": 3}], ids=str)
def test_the_answers_of_a_round_are_scored_by_all(place, layout):
    given = [f"sft={place / 'base'}", f"path={place / 'pairs.jsonl'}", *COMMON, *POLICY, "objective.samples=32"]
    recipe = recipe_of("grpo", *given, "schedule.micro_batch=4")  # 4 questions, in pieces of 32 answers
    assert scored(recipe) == 4
    assert run_processes(2, scored, recipe.change(layout=Layout(**layout))) == [2, 2]
