"""Every layout takes the same steps as one process: loss and gradient norm by SGD, which hides no factor."""

import pytest

from sanbu.machine import decide
from sanbu.parallel.layout import Layout
from sanbu.parallel.world import join
from sanbu.recipes import make
from sanbu.training import Training
from tests.parallel.processes import run_processes

SGD = ["optimizer=sgd", "optimizer.learning_rate=0.3", "optimizer.clip=1.0", "schedule.seed=3"]
COMMON = ["machine.device=cpu", "machine.precision=float32", "machine.threads=1", "schedule.steps=3", *SGD]
TEXT = [
    "data.tokenizer=byte", "data.context=16", "model.context=16", "model.width=16", "model.heads=4", "model.layers=4",
    "schedule.batch=8", "schedule.micro_batch=2",
]  # fmt: skip


def recipe_of(name, *changes):
    recipe, rest = make(name, list(changes))
    return recipe.change(*rest).resolve()


def steps(recipe, count=3):
    """The metrics of the first steps, and a sum over the weights after them."""
    with join(recipe.layout, "cpu") as world:
        training = Training(recipe, decide(recipe.machine), world)
        found = []
        while training.step < count:
            if training.advance():
                found.append({name: value for name, value in training.metrics.items() if not name.startswith("time")})
        return found


ONE = {}


def alone(name, *changes):
    key = (name, *changes)
    if key not in ONE:
        ONE[key] = steps(recipe_of(name, *changes))
    return ONE[key]


def check(layout, processes, name, *changes):
    expected = alone(name, *changes)
    recipe = recipe_of(name, *changes).change(layout=Layout(**layout))
    for found in run_processes(processes, steps, recipe):
        assert len(found) == len(expected) == 3
        for one, many in zip(expected, found, strict=True):
            assert one.keys() == many.keys()
            for metric, value in one.items():
                assert many[metric] == pytest.approx(value, rel=2e-5, abs=1e-5), metric


@pytest.mark.parametrize("name", ["gpt2", pytest.param("llama", marks=pytest.mark.slow), "shakespeare"])
@pytest.mark.parametrize("layout", [{}, {"zero": 1}, {"zero": 2}, {"zero": 3}], ids=str)
def test_rows_and_states_over_two_processes(name, layout):
    check(layout, 2, name, *COMMON, *TEXT)


PICTURES = ["model.width=16", "schedule.batch=8", "schedule.micro_batch=4"]


@pytest.mark.parametrize(
    "layout", [{}, pytest.param({"zero": 1}, marks=pytest.mark.slow), {"zero": 2}, {"zero": 3}], ids=str
)
@pytest.mark.parametrize("name", ["flow", "vae", "gan", "few-labels", "pixelcnn"])
def test_pictures_over_two_processes(name, layout):
    extra = [] if name != "gan" else ["schedule.micro_batch=8"]
    check(layout, 2, name, *COMMON, *PICTURES, *extra)


@pytest.mark.parametrize("layout", [{"shard": 2, "zero": 3}, {"shard": 2, "zero": 2}], ids=str)
def test_hybrid_sharding_over_four_processes(layout):
    check(layout, 4, "gpt2", *COMMON, *TEXT)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("layout", [{"tensor": 2}, {"tensor": 2, "sequence": "on"}], ids=str)
def test_matrices_over_two_processes(name, layout):
    check(layout, 2, name, *COMMON, *TEXT)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zero-bubble"])
def test_layers_over_two_processes(schedule):
    check({"pipeline": 2, "schedule": schedule}, 2, "gpt2", *COMMON, *TEXT)


@pytest.mark.parametrize("model", ["gpt2", pytest.param("llama", marks=pytest.mark.slow), "modern"])
def test_positions_over_two_processes(model):
    check({"context": 2}, 2, "gpt2", *COMMON, *TEXT, f"model={model}")


KINDS = ["gpt1", "gpt3", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "neox", "opt", "modern"]
CHANGES = {"gpt1": ["model.dropout=0"], "opt": ["model.dropout=0"], "neox": ["model.rotated=1"]}


@pytest.mark.slow
@pytest.mark.parametrize("sequence", ["on", "off"])
@pytest.mark.parametrize("model", KINDS)
def test_every_transformer(model, sequence):
    changes = [f"model={model}", *CHANGES.get(model, []), "optimizer.learning_rate=0.03"]
    check({"tensor": 2, "sequence": sequence}, 2, "gpt2", *COMMON, *TEXT, *changes)


MESHES = [
    (4, {"tensor": 2, "data": 2}),
    (4, {"tensor": 2, "zero": 1}),
    (4, {"tensor": 2, "zero": 3}),
    (4, {"tensor": 2, "zero": 2, "sequence": "on"}),
    (4, {"pipeline": 2, "data": 2}),
    (4, {"pipeline": 2, "zero": 1}),
    (4, {"pipeline": 2, "zero": 3}),
    (4, {"pipeline": 2, "tensor": 2, "sequence": "on"}),
    (4, {"pipeline": 4}),
    (4, {"context": 2, "data": 2}),
    (4, {"context": 2, "zero": 3}),
    (8, {"pipeline": 2, "data": 2, "tensor": 2, "zero": 1}),
    (8, {"pipeline": 2, "tensor": 2, "zero": 3, "sequence": "on"}),
]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(("processes", "layout"), MESHES, ids=str)
def test_several_dimensions(processes, layout, name, optimizer):
    plain = [each for each in COMMON if not each.startswith("optimizer")]
    check(layout, processes, name, *(COMMON if optimizer == "sgd" else [*plain, f"optimizer={optimizer}"]), *TEXT)


@pytest.mark.slow
def test_positions_and_matrices():
    check({"context": 2, "tensor": 2}, 4, "gpt2", *COMMON, *TEXT)


RECOMPUTED = [{"zero": 3}, {"tensor": 2, "sequence": "on"}, {"pipeline": 2}, {"context": 2}]


@pytest.mark.parametrize("layout", RECOMPUTED, ids=str)
def test_activations_that_are_computed_again(layout):
    check(layout, 2, "gpt2", *COMMON, *TEXT, "machine.recompute=on")


def test_three_dimensions():
    check({"pipeline": 2, "tensor": 2, "zero": 3}, 8, "gpt2", *COMMON, *TEXT)
