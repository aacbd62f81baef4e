"""Decoder models: published sizes, causality, packing, KV caches."""

import pytest
import torch

from sanbu import recipes
from sanbu.layers.attention import band, causal
from sanbu.layers.positions import LinearScaling, Rotary
from sanbu.memory.cost import cost
from sanbu.models.tokens.gemma import Gemma2, Gemma3
from sanbu.models.tokens.gpt import GPT1, GPT2, GPT3
from sanbu.models.tokens.llama import Llama, Mistral
from sanbu.models.tokens.modern import Modern
from sanbu.models.tokens.neox import NeoX
from sanbu.models.tokens.opt import OPT
from sanbu.models.tokens.phi import Phi3
from sanbu.models.tokens.qwen import Qwen2, Qwen3
from sanbu.objectives.next_token import cross_entropy
from sanbu.space import Space
from sanbu.testing import build_seeded, fill

SPACE = Space((24,), 50, 0)
SMALL = {"layers": 3, "heads": 4, "width": 32, "context": 32}
FAMILIES = [
    GPT1(**SMALL),
    GPT2(**SMALL),
    GPT3(**SMALL, band=5),
    Llama(**SMALL, key_heads=2),
    Modern(**SMALL),
    Mistral(**SMALL, key_heads=2, window=5),
    Qwen2(**SMALL, window=4, local=(1, 2)),
    Qwen3(**SMALL, head_width=12, key_heads=1, tied=True),
    Phi3(**SMALL, rotated=0.5, window=6),
    Gemma2(**SMALL, key_heads=2, window=5, head_width=12),
    Gemma3(**SMALL, key_heads=2, window=3, local=(0, 2), scaling=LinearScaling(factor=4.0)),
    NeoX(**SMALL),
    OPT(**SMALL),
]


@pytest.fixture(params=FAMILIES, ids=lambda config: config.kind)
def model(request):
    built = build_seeded(lambda: request.param.build(SPACE)).eval().requires_grad_(False)
    fill(built)
    return built


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("gpt1", "117m", 116_534_784),
        ("gpt2", "124m", 124_439_808),
        ("gpt2", "355m", 354_823_168),
        ("gpt2", "774m", 774_030_080),
        ("gpt2", "1.5b", 1_557_611_200),
        ("gpt2", "paper", 1_557_611_200),
        ("llama", "7b", 6_738_415_616),
        ("llama", "13b", 13_015_864_320),
        ("llama", "33b", 32_528_943_616),
        ("llama", "65b", 65_285_660_672),
    ],
)
def test_published_parameters(name, size, parameters):
    assert cost(recipes.find(name)(size=size)).parameters == parameters


@pytest.mark.parametrize(
    ("size", "millions"),
    [
        ("125m", 125),
        ("350m", 356),
        ("760m", 760),
        ("1.3b", 1320),
        ("2.7b", 2650),
        ("6.7b", 6660),
        ("13b", 12850),
        ("175b", 174_600),
    ],
)
def test_gpt3_table(size, millions):
    """Table 2.1, within its rounding; where a row contradicts itself (1.3b, 13b), the code explains the sizes used."""
    assert cost(recipes.gpt3(size=size)).parameters == pytest.approx(millions * 1e6, rel=0.005)


def test_flops_and_cache_of_gpt2():
    """6 FLOPs per matrix weight and 12 T D per layer; the cache has two vectors per layer and token, in float32."""
    found = cost(recipes.gpt2(size="124m"))
    assert found.flops_per_token == 6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 1024 * 768
    assert found.kv_cache_bytes_per_token == 2 * 12 * 768 * 4
    assert found.weight_bytes == 4 * found.parameters


def test_no_position_sees_a_later_one(model):
    tokens = torch.randint(1, 50, (2, 24))
    before = model(tokens)
    for t in (1, 12, 23):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 50
        after = model(changed)
        assert after[:, :t].equal(before[:, :t])
        assert not torch.allclose(after[:, t:], before[:, t:], atol=1e-4)


def packed():
    """Two documents of 9 and 15 tokens in one row, and their positions."""
    tokens = torch.randint(1, 50, (1, 24))
    return tokens, torch.cat((torch.arange(9), torch.arange(15)))[None]


def test_a_packed_document_does_not_see_the_other(model):
    tokens, positions = packed()
    before = model(tokens, positions)
    changed = tokens.clone()
    changed[:, :9] = (changed[:, :9] + 7) % 50
    after = model(changed, positions)
    assert after[:, 9:].equal(before[:, 9:])  # bitwise
    assert not torch.allclose(after[:, :9], before[:, :9], atol=1e-3)


def test_packed_loss_is_the_sum_of_separate_losses(model):
    tokens, positions = packed()
    targets = torch.randint(0, 50, (1, 24))
    together = cross_entropy(model(tokens, positions)[0], targets[0])
    apart = cross_entropy(model(tokens[:, :9])[0], targets[0, :9]) + cross_entropy(
        model(tokens[:, 9:])[0], targets[0, 9:]
    )
    leaking = cross_entropy(model(tokens)[0], targets[0])
    assert torch.isclose(together, apart, rtol=1e-5)
    assert (leaking - apart).abs() > 100 * (together - apart).abs() + 0.01  # shows that this test would detect a leak


@pytest.mark.parametrize("cuts", [[24], [1] * 24, [5, 1, 12, 6], [23, 1]])
def test_cached_is_uncached_for_every_split(model, cuts):
    tokens = torch.randint(1, 50, (3, 24))
    whole, cache, start = model(tokens), model.cache(3, 32), 0
    for size in cuts:
        positions = torch.arange(start, start + size).expand(3, size)
        part = model(tokens[:, start : start + size], positions, cache)
        torch.testing.assert_close(part, whole[:, start : start + size], atol=1e-5, rtol=1e-5)
        start += size


def test_rows_of_a_cache_keep_their_own_places(model):
    tokens = torch.randint(1, 50, (2, 24))
    whole, cache = model(tokens), model.cache(2, 32)
    model(tokens[:, :10], torch.arange(10).expand(2, 10), cache)  # now row 1 is 4 tokens behind row 0
    places = torch.tensor([[10], [6]])
    part = model(tokens.gather(1, places), places, cache)
    torch.testing.assert_close(part[:, 0], whole[torch.arange(2), places[:, 0]], atol=1e-5, rtol=1e-5)


def test_patterns():
    t = torch.arange(5)
    assert causal(t[:, None], t).equal(torch.ones(5, 5).tril().bool())
    assert band(2)(t[:, None], t).equal(torch.ones(5, 5).tril().triu(-1).bool())


def test_rotary_depends_on_distance_alone():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    rotary = Rotary(8)
    products = [(rotary(q, torch.tensor([[3 + s]])) * rotary(k, torch.tensor([[1 + s]]))).sum() for s in (0, 5, 20)]
    torch.testing.assert_close(products[0], products[1])
    torch.testing.assert_close(products[0], products[2])
    assert not torch.isclose(products[0], (rotary(q, torch.tensor([[9]])) * rotary(k, torch.tensor([[1]]))).sum())


def test_bfloat16_cache_follows_the_weights(model):
    half = model.bfloat16()
    cache = half.cache(1, 32)
    assert cache[0].keys.dtype == torch.bfloat16
    assert half(torch.ones(1, 3, dtype=torch.long), torch.arange(3)[None], cache).isfinite().all()
