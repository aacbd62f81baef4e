"""Degrees of a layout: every rank has one place, and what cannot be is one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sanbu.config import ConfigError, SanbuError
from sanbu.loop import train
from sanbu.machine import decide
from sanbu.parallel.layout import Degrees, Layout
from sanbu.parallel.world import join
from sanbu.training import Training
from sanbu.watcher import Watcher
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import COMMON, TEXT, recipe_of

small = some.integers(1, 4)


@given(small, small, small, small, small)
def test_places_and_ranks_are_inverse(blocks, shard, tensor, context, pipeline):
    degrees = Degrees(blocks * shard, shard, tensor, context, pipeline)
    places = [degrees.place(rank) for rank in range(degrees.size)]
    assert [degrees.rank(place) for place in places] == list(range(degrees.size)) and len(set(places)) == degrees.size
    for rank, place in enumerate(places):
        if tensor > 1 and place.tensor == 0:
            assert places[rank + 1].stage == place.stage and places[rank + 1].data == place.data


def test_degrees_follow_from_the_number_of_processes():
    assert Layout(tensor=2, pipeline=2).degrees(8) == Degrees(2, 1, 2, 1, 2)
    assert Layout(zero=3).degrees(4) == Degrees(4, 4, 1, 1, 1)
    assert Layout(zero=3, shard=2).degrees(4) == Degrees(4, 2, 1, 1, 1)
    assert Layout(shard=16, zero=3).processes() == 16 and Layout(data=2, tensor=2, pipeline=2).processes() == 8
    assert Layout(data=2, tensor=2).degrees(4).describe() == "data 2, tensor 2"


@pytest.mark.parametrize(
    ("layout", "processes", "line"),
    [
        ({"data": 3}, 2, r"1 pipeline x 3 data x 1 context x 1 tensor = 3 ranks, but there are 2 processes"),
        ({"tensor": 4}, 2, r"= 4 ranks, but there are 2 processes"),
        ({"zero": 3, "shard": 3}, 4, r"layout.shard: given 3, but there are 4 data ranks; allowed: 1, 2, 4"),
        ({"shard": 2}, 2, r"layout.shard: given 2, but layout.zero=0 divides nothing"),
        ({"zero": 1, "shard": 2}, 4, r"layout.zero=1 divides over all 4 data ranks"),
        ({"context": 2, "pipeline": 2}, 4, r"layout.context: given 2, which goes with neither"),
    ],
)
def test_impossible_degrees_are_one_line(layout, processes, line):
    with pytest.raises(ConfigError, match=line):
        Layout(**layout).degrees(processes)


def compare(values):
    with join(Layout(), "cpu") as world:
        try:
            world.same("recipes", values[world.rank])
        except SanbuError as error:
            return str(error)
    return ""


def test_processes_with_different_recipes_are_one_line():
    for said in run_processes(2, compare, [["name=a", "steps=1"], ["name=a", "steps=2"]]):
        assert said == "the processes have different recipes: rank 0 has steps=1, rank 1 steps=2"
    assert run_processes(2, compare, [["name=a"], ["name=a"]]) == ["", ""]


def test_watchers_of_processes_that_are_started_here_are_refused(tmp_path):
    recipe = recipe_of("gpt2", *COMMON, *TEXT).change(layout=Layout(data=2))
    with pytest.raises(SanbuError, match="watchers: processes that are started here cannot call them"):
        train(recipe, tmp_path / "run", watchers=[Watcher()])
    assert not (tmp_path / "run").exists()


REFUSED = {
    2: [
        ({"pipeline": 2}, "flow", [], "cannot be cut into stages; allowed: 1"),
        ({"tensor": 2}, "flow", [], "has no plan to divide its matrices; allowed: 1"),
        ({"context": 2}, "flow", [], "is no transformer; allowed: 1"),
        ({"pipeline": 2}, "gan", [], "layout.pipeline: given 2, but the objective trains critic, model; allowed: 1"),
        ({"zero": 1}, "digits-classify", ["optimizer=snes"], "given 1, but the optimizer has no gradient"),
    ],
    3: [
        ({}, "gpt2", TEXT, "schedule.batch: given 8, but the rows are divided over 3 data ranks; allowed"),
        ({"tensor": 3}, "gpt2", TEXT, "layout.tensor: given 3, but blocks.0 has 4 heads; allowed: a divisor"),
        ({"pipeline": 3}, "gpt2", [*TEXT, "model.layers=2"], "3 stages are needed, but the model has 2 layers"),
        ({"context": 3}, "gpt2", TEXT, "layout.context: given 3, but layer 0 has 4 heads"),
    ],
}


def refusals(recipes):
    """What each recipe is refused with."""
    found = []
    for recipe in recipes:
        with join(recipe.layout, "cpu") as world:
            try:
                Training(recipe, decide(recipe.machine), world)
                found.append("")
            except SanbuError as error:
                found.append(str(error))
    return found


@pytest.mark.parametrize("processes", REFUSED)
def test_a_model_that_cannot_be_divided_is_one_line(processes):
    recipes = []
    for layout, name, changes, _ in REFUSED[processes]:
        common = [each for each in COMMON if not each.startswith("optimizer")] if name == "digits-classify" else COMMON
        recipes.append(recipe_of(name, *common, *changes).change(layout=Layout(**layout)))
    for said in run_processes(processes, refusals, recipes):
        for (_, _, _, line), found in zip(REFUSED[processes], said, strict=True):
            assert line in found and "\n" not in found
