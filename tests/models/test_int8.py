"""Int8 layers against the same weights dequantised."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sanbu.models.tokens.gpt import GPT2
from sanbu.models.tokens.llama import Llama
from sanbu.models.tokens.modern import Modern
from sanbu.serve.engine import Engine
from sanbu.serve.request import Request
from sanbu.serve.weights.int8 import ROWS, Int8Linear, quantize
from sanbu.space import Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import generate, last


def linear(bias=True):
    torch.manual_seed(0)
    return nn.Linear(96, 160, bias)


def test_a_weight_is_off_by_half_a_step_at_most_and_the_largest_is_exact():
    one = linear()
    found = Int8Linear(one)
    off = (found.whole * found.scale[:, None] - one.weight).abs()
    assert (off <= found.scale[:, None] / 2 + 1e-7).all()
    assert torch.equal(found.whole.abs().amax(1), torch.full((160,), 127, dtype=torch.int8))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, ROWS, ROWS + 1])
def test_products_are_those_of_the_weights_written_out(rows, bias):
    """Small batches are computed in bfloat16, with a relative error of at most 2^-8."""
    found, x = Int8Linear(linear(bias)), torch.randn(rows, 96)
    weight = found.whole * found.scale[:, None]
    wanted = F.linear(x, weight, found.bias)
    limit = (x.abs() @ weight.abs().T) * (3 / 256) if rows <= ROWS else torch.full_like(wanted, 1e-5)
    assert ((found(x) - wanted).abs() <= limit).all()


def test_a_row_is_the_same_alone_and_among_others():
    found, x = Int8Linear(linear()), torch.randn(ROWS, 96)
    together = found(x)
    assert all(torch.equal(found(x[i : i + 1])[0], together[i]) for i in range(ROWS))


def test_no_weight_at_all_stays_nothing():
    one = linear()
    nn.init.zeros_(one.weight)
    assert torch.equal(Int8Linear(one)(torch.randn(2, 96)), one.bias.detach().expand(2, -1))


@pytest.mark.parametrize("config", [GPT2, Llama, Modern])
def test_a_model_in_eight_bits_says_nearly_the_same(config):
    torch.manual_seed(0)
    model = config(layers=2, heads=4, width=64, context=32).build(Space((32,), 100)).eval()
    tokens = torch.randint(100, (4, 32))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # Modern has zero initial weights, and its head caps large logits
                parameter.normal_()
        before = model(tokens)
        embedding = model.embedding.tokens.weight.clone()
        after = quantize(model)(tokens)
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert torch.equal(model.embedding.tokens.weight, embedding)
    assert (after - before).pow(2).mean().sqrt() < 0.02 * before.std()


def test_it_is_served_as_the_strategy_says_it(tmp_path):
    torch.manual_seed(0)
    model = quantize(GPT2(layers=2, heads=4, width=64, context=64).build(Space((64,), 100)).eval())
    said = []
    engine = Engine(model, None)
    engine.submit(
        Request([1, 2, 3], Autoregressive(max_tokens=8, temperature=0), 0, lambda event: said.append(event.token))
    )
    while engine.busy():
        engine.step()
    strategy = Autoregressive(max_tokens=8, temperature=0).build(Space((64,), 100))
    condition = {"tokens": torch.tensor([[1, 2, 3]]), "length": torch.tensor([3])}
    with torch.inference_mode():
        alone = last(generate(strategy, {"model": model}, condition, torch.arange(1))).sample[0, 3:]
    assert said[:-1] == alone[:8].tolist()


@pytest.mark.parametrize("inputs", [1, 8, 24, 40])
def test_inputs_that_are_no_multiple_of_what_the_kernel_reads(inputs):
    """There the kernel of torch ends the process with a segmentation fault."""
    torch.manual_seed(0)
    linear = nn.Linear(inputs, 5).requires_grad_(False)
    for rows in (1, 3, 8, 33):
        x = torch.randn(rows, inputs)
        assert (Int8Linear(linear)(x) - linear(x)).abs().max() < 0.1
