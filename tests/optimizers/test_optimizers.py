"""Optimizers: Muon against torch's own, learning-rate schedules, and parameter roles."""

import pytest
import torch
from torch import nn

from sanbu.models.tokens.gpt import GPT2
from sanbu.models.tokens.llama import Llama
from sanbu.optimizers import muon
from sanbu.optimizers.muon import COEFFICIENTS, MuonOptimizer, iterate, iterate_gram, orthogonalize
from sanbu.optimizers.rate import constant, cosine, linear
from sanbu.optimizers.roles import roles
from sanbu.space import Space


@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32)])
def test_orthogonalized_singular_values_are_near_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(5, *shape)
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    near, far = (orthogonalize(matrices) - u @ v).norm(), (orthogonalize(matrices) - matrices).norm()
    assert near < 0.3 * (u @ v).norm() and far > near


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("rank", [3, 8])
def test_the_gram_form_takes_the_same_steps(steps, rank):
    torch.manual_seed(0)
    x = torch.randn(2, 8, rank) @ torch.randn(2, rank, 32)
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    a, b, c = COEFFICIENTS
    plain = x.double()
    for _ in range(steps):
        gram = plain @ plain.mT
        plain = (a * torch.eye(8, dtype=torch.float64) + b * gram + c * gram @ gram) @ plain
    for form, error in ((iterate, 1e-9), (iterate_gram, 1e-9)):
        assert (form(x.double(), steps) - plain).norm() < error * plain.norm()
        assert (form(x, steps) - plain).norm() < 1e-4 * plain.norm()


def test_large_products_in_bfloat16_where_it_is_faster(monkeypatch):
    matrices = torch.randn(2, 256, 320)
    monkeypatch.setattr(muon, "bfloat16_pays", lambda device: False)
    whole = orthogonalize(matrices)
    monkeypatch.setattr(muon, "bfloat16_pays", lambda device: True)
    half = orthogonalize(matrices)
    assert half.dtype == torch.float32 and 1e-4 < (half - whole).norm() / whole.norm() < 0.03
    assert torch.equal(orthogonalize(matrices[:, :64]), iterate_gram_of(matrices[:, :64]))  # small: in float32


def iterate_gram_of(x):
    return iterate_gram(x / x.norm(dim=(-2, -1), keepdim=True), 5)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_muon_is_torch_muon(decay):
    """The same updates as torch.optim.Muon (computed in bfloat16) for tall, wide and square matrices."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(12, 24)), nn.Parameter(torch.randn(24, 12)), nn.Parameter(torch.randn(12, 24))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    begin = [p.detach().clone() for p in ours]
    mine, peer = MuonOptimizer(ours, 0.02, 0.95, decay), torch.optim.Muon(theirs, 0.02, decay, momentum=0.95)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        peer.step()
    for a, b, start in zip(ours, theirs, begin, strict=True):
        assert (a - b).norm() < 0.03 * (b - start).norm()


def test_rates():
    rate = linear(100, 0.1, 0.4, 0.0)
    assert [rate(0), rate(4), rate(9), rate(49), rate(74), rate(99)] == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.0])
    rate = cosine(100, 0.0, 0.1)
    assert rate(0) == 1.0 and rate(50) == pytest.approx(0.55) and rate(100) == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(map(rate, range(99)), map(rate, range(1, 100)), strict=True))
    assert constant(100, 0.5)(24) == 0.5 and constant(100, 0.0)(0) == 1.0


def test_roles_hold_every_parameter_once():
    for config, counts in (
        (GPT2(layers=2, width=8, heads=2, context=8), {"embedding": 2, "head": 0}),
        (Llama(layers=2, width=8, heads=2, context=8), {"embedding": 1, "head": 1}),
    ):
        model = config.build(Space((8,), 20))
        found = roles({"model": model})
        assert sorted(id(p) for members in found.values() for p in members) == sorted(map(id, model.parameters()))
        assert {role: len(found[role]) for role in counts} == counts
        assert all(p.ndim == 2 for p in found["matrix"]) and all(p.ndim == 1 for p in found["vector"])
