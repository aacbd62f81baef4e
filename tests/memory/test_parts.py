"""The parts of an estimate against real tensors, the heap against its definition, and what a check must not do."""

import time

import pytest
import torch

from sanbu import recipes
from sanbu.machine import MachineConfig, decide
from sanbu.memory import training as counted
from sanbu.memory.heap import ALIGN, Heap
from sanbu.memory.parts import LIBRARIES, Parts, TooLarge, ran_out, size, told_in_one_line
from sanbu.memory.peak import Answers, Peak, shapes_alone
from sanbu.optimizers.gradient import SGD
from sanbu.training import Training
from tests.memory.measure import recipe_of

SMALL = {
    "gpt2": ["model.width=48", "model.layers=2", "schedule.batch=2"],
    "icl": ["model.width=64", "schedule.batch=4"],
    "gan": ["model.width=32", "schedule.batch=8"],
    "ddpm": ["model.width=16", "schedule.batch=4"],
    "consistency": ["model.width=32", "schedule.batch=8"],
    "vae": ["model.width=32", "schedule.batch=8", "average=none"],
}


def real_parts(recipe):
    """Bytes of weights, gradients and optimizer states of a training after its second round."""
    training = Training(recipe, decide(recipe.machine))
    for _ in range(2):
        while not training.advance():
            pass
    every = {id(t): t for m in training.models.values() for t in (*m.parameters(), *m.buffers())}.values()
    states = [o.state for search in training.searches.values() for o, _ in search.pairs]
    tensors = [t for state in states for values in state.values() for t in values.values() if torch.is_tensor(t)]
    gradients = [t.grad for t in every if t.grad is not None]
    return tuple(sum(t.numel() * t.element_size() for t in group) for group in (every, gradients, tensors))


@pytest.mark.parametrize("name", SMALL)
def test_weights_gradients_and_optimizer_are_exact(name):
    recipe = recipe_of(name, *SMALL[name])
    need = counted.estimate(recipe)
    assert (need.weights, need.gradients, need.optimizer) == real_parts(recipe)
    assert need.activations


def test_optimizers_without_momentum_keep_nothing():
    recipe = recipe_of("icl", "model.width=64").change(optimizer=SGD())
    assert counted.count_kept(recipe, {})[2] == 0
    weights, _, states = counted.count_kept(recipe.change(optimizer=SGD(momentum=0.9)), {})
    assert 0 < states <= weights


@pytest.mark.parametrize("kind", ["genetic", "evolution", "snes", "diagonal-cma", "cma"])
def test_populations_are_counted(kind):
    """What is held in a step: members and draws for each, at the least; the objective may have no gradient."""
    recipe = recipes.find("digits-classify")().change("objective=accuracy", f"optimizer={kind}").resolve()
    weights, _, states = counted.count_kept(recipe, {})
    members = recipe.optimizer.size(weights // 4)
    assert 1.5 * members * weights <= states and counted.estimate(recipe).activations
    assert states <= 8 * members * weights + (40 * weights**2 // 4 if kind == "cma" else 0)
    many = recipe.change("optimizer.population=4000")
    states = counted.count_kept(many, {})[2]
    assert not counted.surely_below(many, {}, LIBRARIES + states)
    assert counted.surely_below(many, {}, LIBRARIES + 2 * states)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("reward", "ppo", "grpo", "gpt1-classify")]


@pytest.mark.parametrize("name", ["sft", "dpo", *SLOW])
def test_objectives_on_other_data_are_counted_too(name):
    recipe = recipe_of(name, "schedule.batch=8", "schedule.micro_batch=8")
    parents = {role: recipe_of("sft") for role in recipe.objective.needs() if role != "reward"}
    if "reward" in recipe.objective.needs():
        parents["reward"] = recipe_of("reward")
    need = counted.estimate(recipe, parents)
    assert need.activations and need.weights > need.gradients * (0.99 if not parents else 1.5)


@pytest.mark.slow
def test_a_deep_model_is_as_deep_as_its_blocks():
    """What two shallower models say of a deep one is what counting the deep one says."""
    recipe = recipe_of("gpt2", "model.width=48", "model.layers=20", "schedule.batch=8", "schedule.evaluate_every=0")
    extrapolated = counted.count_activations(recipe, {}, torch.float32)
    assert extrapolated == pytest.approx(max(counted.activations_of(recipe, {}, torch.float32)), rel=0.03)


def test_activations_grow_with_rows_and_fall_with_bfloat16_and_recomputation():
    recipe = recipe_of("gpt2", "model.width=96", "schedule.batch=16", "schedule.evaluate_every=0")
    whole = counted.count_activations(recipe, {}, torch.float32)
    half = counted.count_activations(recipe.change(micro_batch=8), {}, torch.float32)
    assert 0.4 * whole < half < 0.75 * whole
    assert counted.count_activations(recipe, {}, torch.bfloat16) < 0.9 * whole
    assert counted.count_activations(recipe.change("machine.recompute=on"), {}, torch.float32) < 0.8 * whole


def test_counting_draws_no_random_number_and_leaves_no_hollow_tensor_behind():
    recipe = recipe_of("ddpm", *SMALL["ddpm"])
    before = torch.get_rng_state()
    counted.estimate(recipe)
    counted.surely_below(recipe, {}, 1)
    assert torch.get_rng_state().equal(before)
    training = Training(recipe, decide(MachineConfig(device="cpu", precision="float32", threads=1)))
    training.advance()
    for module in training.models.values():
        assert all(type(p.data) is torch.Tensor and p.device.type == "cpu" for p in module.parameters())


@pytest.mark.parametrize("name", ["gpt2", "modern", "ddpm", "dit", "vae", "image-gpt", "icl"])
def test_a_small_run_is_not_held_up(name):
    """The rough bound is above the estimate, and takes no more than a fifth of a second on an idle machine."""
    recipe = recipe_of(name)
    counted.surely_below(recipe, {}, 1)
    start = time.process_time()
    assert counted.surely_below(recipe, {}, 6 * 10**9)
    assert time.process_time() - start < 0.2
    assert not counted.surely_below(recipe, {}, counted.estimate(recipe).total)


def test_a_step_that_cannot_be_traced_is_counted_without_activations(monkeypatch):
    recipe = recipe_of("icl")
    monkeypatch.setattr(type(recipe.data), "example", lambda self, rows: {})
    need = counted.estimate(recipe)
    assert need.activations is None and need.weights and "activations not counted" in need.describe()


def test_peak_counts_what_lives():
    with shapes_alone(), Peak() as peak:
        a = torch.zeros(1000)
        b = a + 1
        assert peak.live == 8000
        del a
        c = b.view(10, 100).mul_(2)  # no new storage
        assert peak.live == 4000 and peak.most == 8000
        del b
        assert peak.live == 4000
        del c
    assert peak.live == 0


def test_saved_tensors_live_until_the_backward_pass():
    with shapes_alone(), Peak() as peak:
        x = torch.zeros(1000, requires_grad=True)
        y = (x * 2).exp().sin().sum()
        assert peak.live == 4000 * 2 + 4  # x and the power, which its own gradient and that of the sine need
        y.backward()
        assert peak.live == 4000 * 2 + 4  # x and its gradient


def test_answers():
    with shapes_alone(), Answers(longest=7):
        lengths, mask = torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool)
        assert bool(mask.any()) and int(lengths.max()) == 7 and int(lengths[0]) == 0
        assert lengths.tolist() == [0, 0, 0] and float(torch.zeros(())) == 0.0
        assert mask.nonzero().shape == (3, 1) and torch.zeros(3, 5)[mask].shape == (3, 5)


def test_the_heap_uses_freed_blocks_again_and_joins_neighbours():
    heap = Heap()
    small, large = 1000, 100_000
    blocks = [heap.take(large) for _ in range(3)]
    top = heap.most
    heap.give(blocks[1])
    heap.take(small)
    assert heap.most == top  # in the hole
    heap.take(large)
    assert heap.most > top  # the hole is no longer large enough
    for order in ((0, 1), (1, 0)):
        heap = Heap()
        blocks = [heap.take(large) for _ in range(3)]
        for number in order:
            heap.give(blocks[number])
        heap.take(2 * large)
        assert heap.most == pytest.approx(3 * large, abs=6 * ALIGN)
    heap = Heap()
    heap.give(heap.take(2 << 30))
    heap.take(large)
    assert heap.most == pytest.approx(2 << 30, rel=0.001) and heap.mapped == 0


def test_lines():
    need = Parts(700_000_000_000, 700_000_000_000, 1_400_000_000_000, 12_000_000_000)
    line = "gpt3 needs about 2,812 GB (weights 700 GB, gradients 700 GB, optimizer 1,400 GB, activations 12.0 GB)"
    assert str(TooLarge("gpt3", need, 23 * 10**9, "size=125m fits")) == (
        f"{line}, and this machine has 23.0 GB left; size=125m fits"
    )
    assert [size(n) for n in (5e6, 2.54e9, 2.7941e12)] == ["5 MB", "2.5 GB", "2,794 GB"]
    assert ran_out(MemoryError()) and ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
    assert not ran_out(RuntimeError("shapes differ")) and not ran_out(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shapes"), told_in_one_line(lambda: "x"):
        raise RuntimeError("shapes differ")


def test_sizes_are_named_smallest_first():
    from sanbu.recipes.sizes import sizes

    assert sizes("gpt2") == ["nano", "124m", "355m", "774m", "1.5b"] and sizes("dit")[-1] == "xl"
    assert all(sizes(name)[0] == "nano" for name in recipes.RECIPES if name not in ("consistency",) and sizes(name))


def test_what_is_found_in_closed_form_is_not_run_to_count(monkeypatch):
    """No pass of a model of columns, only its weights; a model that follows the gradient is run."""
    runs = []
    monkeypatch.setattr(counted, "count_activations", lambda *arguments: runs.append(arguments[0].name) or 7)
    closed = counted.estimate(recipes.table(path="iris").resolve())
    assert closed.activations is None and not runs and closed.weights > 0
    assert "activations not counted" in closed.describe()
    followed = counted.estimate(recipes.gpt2().resolve())
    assert followed.activations == 7 and runs == ["gpt2"]
