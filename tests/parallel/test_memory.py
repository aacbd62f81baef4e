"""Bytes on each rank: what is measured falls as theory says, and what `sanbu show` says is what is measured."""

import pytest
import torch

from sanbu.config import ConfigError, SanbuError
from sanbu.machine import decide, local
from sanbu.memory import limits
from sanbu.memory.check import check_ranks
from sanbu.memory.limits import Room
from sanbu.memory.per_rank import Counted, layouts, that_fit
from sanbu.parallel.layout import Layout
from sanbu.parallel.world import join
from sanbu.training import Training
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import TEXT, recipe_of

PLAIN = ["machine.device=cpu", "machine.precision=float32", "machine.threads=1", "schedule.steps=3"]
WIDE = [*TEXT, "model.width=64", "optimizer=adamw"]


def measured(recipe):
    """Bytes of weights, gradients and optimizer states on this rank after a step."""
    with join(recipe.layout, "cpu") as world:
        training = Training(recipe, decide(recipe.machine), world)
        held = {}
        follow = training.searches["model"].follow

        def watch(*given):
            parameters = list(training.models["model"].parameters())
            held["gradients"] = sum(local(p.grad).nbytes for p in parameters if p.grad is not None)
            return follow(*given)

        training.searches["model"].follow = watch
        training.advance()
        held["weights"] = sum(local(p).nbytes for p in training.models["model"].parameters())
        optimizers = [getattr(each, "optim", each) for each, _ in training.searches["model"].pairs]
        states = [values for each in optimizers for state in each.state.values() for values in state.values()]
        held["optimizer"] = sum(local(tensor).nbytes for tensor in states)
        return held


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        ({}, (1, 1, 1)),
        ({"zero": 1}, (1, 1, 1 / 2)),
        ({"zero": 2}, (1 / 2, 1 / 2, 1 / 2)),  # whole only during a turn
        ({"zero": 3}, (1 / 2, 1 / 2, 1 / 2)),
    ],
    ids=str,
)
def test_bytes_fall_as_theory_says(layout, parts):
    recipe = recipe_of("gpt2", *PLAIN, *WIDE)
    one = measured(recipe)
    for found in run_processes(2, measured, recipe.change(layout=Layout(**layout))):
        for name, part in zip(("weights", "gradients", "optimizer"), parts, strict=True):
            assert found[name] == pytest.approx(part * one[name], rel=0.1), name


@pytest.mark.parametrize(
    ("layout", "processes"), [({"tensor": 2}, 2), ({"pipeline": 2}, 2), ({"zero": 1, "tensor": 2}, 4)], ids=str
)
def test_what_is_shown_is_what_is_measured(layout, processes):
    recipe = recipe_of("gpt2", *PLAIN, *WIDE)
    shown = Counted.of(recipe, {}).rank(Layout(**layout), Layout(**layout).degrees(processes))
    found = run_processes(processes, measured, recipe.change(layout=Layout(**layout)))
    for name in ("weights", "gradients", "optimizer"):
        assert max(each[name] for each in found) == pytest.approx(getattr(shown, name), rel=0.1), name


def test_layouts_that_fit_begin_with_the_simplest():
    recipe = recipe_of("gpt2", *PLAIN, *WIDE)
    counted = Counted.of(recipe, {})
    every = list(layouts(counted, 4))
    assert {degrees.size for _, degrees in every} == {4} and len(every) > 8
    fitting = that_fit(counted, 4, 10**12)
    assert fitting[0][0] == Layout(data=4) and len(fitting) == len(every)
    room = sorted(parts.least for _, _, parts in fitting)[2]
    assert len(that_fit(counted, 4, room)) == 3
    with pytest.raises(ConfigError, match=r"no layout fits on 4 devices of 0 MB: the least takes .*micro_batch"):
        that_fit(counted, 4, 1000)
    with pytest.raises(ConfigError, match="rows cannot be divided over them"):
        that_fit(Counted.of(recipe_of("flow", *PLAIN, "schedule.batch=4"), {}), 3, 10**12)


def refused(recipe, rooms):
    """What each rank is refused with on a machine with so many bytes left, by rank."""
    with join(recipe.layout, "cpu") as world:
        limits.room = lambda device: Room(rooms[world.rank])
        try:
            check_ranks(recipe, {}, torch.float32, world)
        except SanbuError as error:
            return str(error)
    return ""


def test_ranks_share_the_memory_of_their_machine():
    recipe = recipe_of("gpt2", *PLAIN, *WIDE).change(layout=Layout(data=2))
    layout = Layout(data=2)
    need = Counted.of(recipe, {}).rank(layout, layout.degrees(2)).least
    assert run_processes(2, refused, recipe, (2 * need, 2 * need)) == ["", ""]
    for rooms in ((2 * need - 2, 2 * need - 2), (2 * need, 2 * need - 2)):
        for said in run_processes(2, refused, recipe, rooms):
            assert said.startswith("a rank of gpt2 on 2 ranks (data 2) needs about ") and "\n" not in said
            assert ", and it has 5 MB left; layout.data=2 layout.zero=1 fits (about " in said
    for said in run_processes(2, refused, recipe, (1000, 1000)):
        assert said.endswith("and a rank has 0 MB left; every rank first builds the whole model")


def test_a_layout_that_divides_more_is_not_refused():
    recipe = recipe_of("gpt2", *PLAIN, *WIDE)
    most, least = (
        Counted.of(recipe, {}).rank(layout, layout.degrees(2)).least for layout in (Layout(data=2), Layout(zero=3))
    )
    assert least < most
    assert run_processes(2, refused, recipe.change(layout=Layout(zero=3)), (2 * most - 2,) * 2) == ["", ""]
