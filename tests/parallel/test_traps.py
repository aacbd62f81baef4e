"""Faults that several processes are known for, each with a remedy that these tests need."""

import torch
from torch import nn

from sanbu.machine import decide, local
from sanbu.parallel.layout import Layout
from sanbu.parallel.replicas import Reducer
from sanbu.parallel.world import join
from sanbu.training import Training
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import COMMON, TEXT, recipe_of


def begin(recipe):
    with join(recipe.layout, "cpu") as world:
        return sums(Training(recipe, decide(recipe.machine), world))


def sums(training):
    found = {}
    for name, tensor in training.models["model"].state_dict().items():
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        found[name] = (float(whole.sum()), float(whole.square().sum()))
    return found


def test_every_layout_begins_with_the_weights_of_the_seed():
    """Random numbers drawn for a part would be the same on every rank."""
    recipe = recipe_of("gpt2", *COMMON, *TEXT)
    one = begin(recipe)
    for layout in (Layout(zero=3), Layout(tensor=2)):
        for found in run_processes(2, begin, recipe.change(layout=layout)):
            assert found.keys() == one.keys()
            for name, value in found.items():
                torch.testing.assert_close(torch.tensor(value), torch.tensor(one[name]), rtol=1e-5, atol=1e-5)


def tied(recipe):
    with join(recipe.layout, "cpu") as world:
        model = Training(recipe, decide(recipe.machine), world).models["model"]
        return model.head.weight is model.embedding.tokens.weight


def test_a_tied_head_stays_tied():
    """parallelize_module gives embedding and head a parameter each."""
    recipe = recipe_of("gpt2", *COMMON, *TEXT)
    for layout in (Layout(zero=3), Layout(tensor=2)):
        assert all(run_processes(2, tied, recipe.change(layout=layout)))


def test_heads_of_different_ranks_drop_differently_and_the_rest_the_same():
    """One seed on all ranks repeats the mask of the first heads in the others."""
    recipe = recipe_of("gpt2", *COMMON, *TEXT, "model=gpt1", "model.dropout=0.5").change(layout=Layout(tensor=2))
    (heads, after), (other_heads, other_after) = run_processes(2, lookup, recipe)
    assert heads != other_heads and after == other_after


def lookup(recipe):
    """Random numbers inside the attention of the first block, and after it."""
    with join(recipe.layout, "cpu") as world:
        model = Training(recipe, decide(recipe.machine), world).models["model"].train()
        attention, seen = model.blocks["0"].attention, []
        inner = attention.product

        def product(*inputs):
            state = torch.get_rng_state()
            seen.append(torch.rand(4).tolist())
            torch.set_rng_state(state)
            return inner(*inputs)

        attention.product = product
        attention.register_forward_hook(lambda *_: seen.append(torch.rand(4).tolist()))
        torch.manual_seed(5)
        model(torch.zeros(1, 16, dtype=torch.long))
        return seen[:2]


def unused(rank_dependent):
    with join(Layout(), "cpu") as world:
        a, b, c = (nn.Parameter(torch.ones(3)) for _ in range(3))
        reducer = Reducer([a, b, c], world.batch, size=12)
        with reducer.around(True):
            (a.sum() * (world.rank + 1) + (b.sum() if world.rank else 0)).backward()
        return [None if p.grad is None else local(p.grad).tolist() for p in (a, b, c)]


def test_parameters_that_some_ranks_do_not_use():
    """DistributedDataParallel would wait for ever; a zero in place of nothing would decay the moments of Adam."""
    for found in run_processes(2, unused, True):
        assert found == [[3.0] * 3, [1.0] * 3, None]


def twice(_):
    with join(Layout(), "cpu") as world:
        w = nn.Parameter(torch.ones(2))
        reducer = Reducer([w], world.batch)
        for last in (False, True):
            with reducer.around(last):
                (w * (world.rank + 1)).sum().backward()
        return w.grad.tolist()


def test_gradients_of_micro_batches_are_summed_once():
    for found in run_processes(2, twice, None):
        assert found == [6.0, 6.0]
