"""Models that are built without contents: bitwise those that are built whole, and no rank holds one whole."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from sanbu.machine import decide
from sanbu.memory.peak import Peak
from sanbu.parallel import divide
from sanbu.parallel.deferred import META, Tape, build_hollow
from sanbu.parallel.layout import Layout
from sanbu.parallel.world import join
from sanbu.recipes import make
from sanbu.training import Training, build_models
from tests.parallel.processes import run_processes
from tests.parallel.test_parity import COMMON, TEXT, recipe_of


class Odd(nn.Module):
    """Ways in which modules are filled."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Linear(5, 7)
        self.normal = nn.Parameter(torch.randn(4, 3) * 2)
        self.cut = nn.Parameter(torch.empty(40, 6))
        nn.init.xavier_uniform_(self.cut)
        self.square = nn.Parameter(torch.empty(6, 6))
        nn.init.orthogonal_(self.square)
        with torch.no_grad():
            self.plain.weight[2].zero_()
            self.plain.weight[:, 1:3].normal_().mul_(3)
            self.plain.bias.copy_(self.cut[0, :1].expand(7) + torch.tensor([1.0, 2, 3, 4, 5, 6, 7]))
            self.cut.mul_(2)
        self.register_buffer("table", torch.outer(torch.arange(3.0), 1 / torch.linspace(1, 2, 4)).cos())
        self.twin = self.plain
        self.copy = copy.deepcopy(self.plain)
        self.last = nn.Embedding(9, 3, padding_idx=0)


def built(kind):
    torch.manual_seed(4)
    return {"model": kind()}


def test_what_filled_a_tensor_is_repeated_bit_for_bit():
    whole = built(Odd)["model"].state_dict()
    state = torch.get_rng_state()
    models, hollow = build_hollow(lambda: built(Odd))
    assert all(tensor.is_meta for tensor in models["model"].state_dict().values())
    assert torch.equal(torch.get_rng_state(), state)
    hollow.fill(models, torch.device("cpu"))
    filled = models["model"].state_dict()
    assert filled.keys() == whole.keys() and all(torch.equal(filled[name], whole[name]) for name in whole)
    assert models["model"].twin.weight is models["model"].plain.weight
    assert torch.equal(torch.get_rng_state(), state)


def test_only_the_last_fill_of_a_tensor_is_repeated():
    with META, Tape() as tape:
        model = nn.Linear(50, 50)
        nn.init.normal_(model.weight)
    assert [call.function.__name__ for call in tape.calls_for(model.weight)] == ["normal_.default"]


class Asks(nn.Module):
    """Decides by what is in a tensor."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.more = nn.Linear(2, 2) if float(self.weight.detach().sum()) > 0 else None


class Rejects(nn.Module):
    """Draws until all numbers are near enough."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(9, 9)
        nn.init.trunc_normal_(self.linear.weight, std=2.0)


class Hides(nn.Module):
    """Keeps a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.hidden = [torch.ones(2)]


@pytest.mark.parametrize("kind", [Asks, Hides, Rejects])
def test_a_model_that_needs_contents_is_built_whole(kind):
    whole = built(kind)["model"].state_dict()
    models, hollow = build_hollow(lambda: built(kind))
    assert hollow is None and all(torch.equal(models["model"].state_dict()[name], whole[name]) for name in whole)


@pytest.mark.parametrize("name", ["gpt2", "llama", "flow", "vae", "gan", "few-labels", "pixelcnn", "wavenet"])
def test_models_of_recipes_can_be_built_without_contents(name):
    recipe, rest = make(name, [])
    recipe = recipe.change(*rest, average="exponential")
    build = lambda: build_models(recipe, None, recipe.objective.build().attach)
    whole, (models, hollow) = build(), build_hollow(build)
    assert hollow is not None
    hollow.fill(models, torch.device("cpu"))
    for model, module in whole.items():
        filled = models[model].state_dict()
        assert all(torch.equal(filled[name], tensor) for name, tensor in module.state_dict().items())


class Real(Peak):
    """Bytes of tensors with contents; a divided tensor is counted by its part."""

    def add(self, tensors):
        super().add(each for each in tensors if each.device.type != "meta" and not isinstance(each, DTensor))


def peak(recipe, whole):
    """The most bytes of tensors at once while a rank builds its model."""
    if whole:
        divide.Divided.build = lambda self, build: build()
    with join(recipe.layout, "cpu") as world, Real() as most:
        Training(recipe, decide(recipe.machine), world)
    return most.most


def test_no_rank_holds_a_whole_model():
    recipe = recipe_of("gpt2", *COMMON, *TEXT, "model.width=128", "model.layers=6").change(layout=Layout(zero=3))
    model = sum(each.numel() for each in recipe.model.build(recipe.data.space()).parameters()) * 4
    assert max(run_processes(2, peak, recipe, False)) < 0.7 * model
    assert min(run_processes(2, peak, recipe, True)) > model
