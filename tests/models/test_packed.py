"""Packed layers against plain layers."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sanbu.config import SanbuError
from sanbu.models.tokens.gpt import GPT2
from sanbu.models.tokens.modern import Modern
from sanbu.serve.paged import PagedCache
from sanbu.serve.weights import packed as module
from sanbu.serve.weights.packed import SMALLEST, PackedLinear, can_pack, pack, pack_bfloat16, packing_pays
from sanbu.space import Space

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


@pytest.fixture(autouse=True)
def every_layer(monkeypatch):
    """Pack layers of every size, on every machine."""
    monkeypatch.setattr(module, "SMALLEST", 1)
    monkeypatch.setattr(module, "packing_pays", lambda: True)


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 33, 513])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_plain_layer(rows, bias):
    plain = nn.Linear(96, 160, bias)
    found, x = PackedLinear(plain), torch.randn(2, rows, 96)
    for one in (x, x.transpose(0, 1), x[0, 0], x[:, ::2]):
        torch.testing.assert_close(found(one), plain(one).detach(), rtol=1e-5, atol=1e-5)


def test_neighbours_do_not_change_a_bit_at_equal_shapes():
    found, x = PackedLinear(nn.Linear(96, 160)), torch.randn(8, 96)
    other = torch.cat([x[:1], torch.randn(7, 96)])
    assert torch.equal(found(x)[0], found(other)[0])


@pytest.mark.parametrize("config", [GPT2, Modern])
def test_a_packed_model_says_the_same_and_keeps_its_embedding(config):
    model = config(layers=2, heads=4, width=64, context=32).build(Space((32,), 100)).eval()
    tokens = torch.randint(100, (4, 32))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_()
        before, embedding = model(tokens), model.embedding.tokens.weight.clone()
        after = pack(model)(tokens)
    assert not any(type(one) is nn.Linear for one in model.modules())
    assert torch.equal(model.embedding.tokens.weight, embedding)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_a_halved_model_says_nearly_the_same_in_float32():
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(SanbuError, match="has none"):
            pack_bfloat16(nn.Linear(8, 8))
        pytest.skip("this processor has no products in bfloat16")
    model = GPT2(layers=2, heads=4, width=64, context=32).build(Space((32,), 100)).eval()
    tokens = torch.randint(100, (4, 32))
    with torch.no_grad():
        before, after = model(tokens), pack_bfloat16(model)(tokens)
    assert {one.weight.dtype for one in model.modules() if isinstance(one, PackedLinear)} == {torch.bfloat16}
    assert after.dtype == torch.float32 and 0 < (after - before).pow(2).mean().sqrt() < 0.01 * before.std()


@pytest.mark.parametrize("config", [GPT2, Modern])
def test_a_halved_model_keeps_keys_and_values_in_bfloat16(config, monkeypatch):
    """Token by token over the cache, the logits are nearly the same."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no products in bfloat16")
    model = config(layers=2, heads=4, width=64, context=32).build(Space((32,), 100)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.1)
    tokens = torch.randint(100, (2, 12))
    before = model(tokens)
    kinds, plain = [], F.scaled_dot_product_attention
    record = lambda q, k, v, **more: (kinds.append((q.dtype, k.dtype)), plain(q, k, v, **more))[1]
    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    cache = pack_bfloat16(model).cache(2, 16)
    places = [torch.full((2, 1), place) for place in range(12)]
    with torch.no_grad():
        after = torch.cat([model(tokens.gather(1, place), place, cache) for place in places], 1)
    assert set(kinds) == {(torch.bfloat16, torch.bfloat16)} and cache[0].keys.dtype == torch.bfloat16
    assert after.dtype == torch.float32
    assert 0 < (after - before).pow(2).mean().sqrt() < 0.02 * before.std()
    assert PagedCache(model, 4, 16)[0].keys.dtype == torch.bfloat16


def test_the_plain_weights_are_let_go():
    model = nn.Sequential(nn.Linear(64, 64))
    plain = weakref.ref(model[0].weight)
    pack(model)
    gc.collect()
    assert plain() is None


def test_small_layers_and_other_types_stay(monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", SMALLEST)
    assert (
        can_pack(nn.Linear(512, 512))
        and not can_pack(nn.Linear(511, 512))
        and not can_pack(nn.Linear(512, 512).double())
    )
    monkeypatch.setattr(module, "packing_pays", lambda: 1 / 0)
    pack(nn.Sequential(nn.Linear(8, 8)))  # there is nothing to measure
    monkeypatch.setattr(module, "packing_pays", lambda: False)
    model = nn.Sequential(nn.Linear(1024, 1024))
    assert pack(model) is model and type(model[0]) is nn.Linear


def test_whether_it_pays_is_measured_and_draws_no_random_number():
    torch.manual_seed(3)
    packing_pays.cache_clear()
    assert packing_pays() in (True, False)
    first = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(first, torch.rand(1))
