"""Recurrent and convolutional models of tokens: exact against torch's cells, loops and sums over taps."""

import math

import pytest
import torch
from torch.nn import functional as F

from sanbu.layers.state import State
from sanbu.models.tokens.canon import Canon
from sanbu.models.tokens.convolution import CausalCNN, Taps
from sanbu.models.tokens.mingru import GatedScan, MinGRU, scan
from sanbu.models.tokens.recurrent import GRU, LSTM, RNN
from sanbu.space import Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.testing import build_seeded, check_model, check_strategy, fill

SPACE = Space((12,), 11, end=10)
KINDS = {
    "rnn": RNN(width=16), "gru": GRU(width=16), "lstm": LSTM(width=16), "mingru": MinGRU(width=16, layers=2),
    "causal-cnn": CausalCNN(width=16, layers=3, dilations=(1, 2)), "canon": Canon(width=16, layers=2, context=64),
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind):
    """A model in float64 without any zero weight."""
    model = build_seeded(lambda: KINDS[kind].build(SPACE)).double()
    fill(model)
    return model.eval()


def tokens(*shape):
    return torch.randint(0, 10, shape, generator=torch.Generator().manual_seed(1))


@every_kind
def test_conformance(kind):
    check_model(KINDS[kind], SPACE, (tokens(3, 12),))


@every_kind
def test_a_row_read_in_parts_gives_what_it_gives_whole(kind):
    model, row = built(kind), tokens(2, 12)
    whole = model(row)
    for cuts in ([1] * 12, [5, 7], [3, 1, 8]):
        cache, parts = model.cache(2, 12), []
        for part in row.split(cuts, 1):
            start = sum(each.shape[1] for each in parts)
            positions = torch.arange(start, start + part.shape[1]).expand_as(part)
            parts.append(model(part, positions, cache))
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-12, atol=1e-12)


@every_kind
def test_a_document_within_a_row_is_read_as_it_is_alone(kind):
    model, row = built(kind), tokens(2, 12)
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    found = model(row, positions)
    for r, cuts in enumerate(([5, 7], [2, 1, 9])):
        alone = torch.cat([model(piece[None]) for piece in row[r].split(cuts)], 1)[0]
        torch.testing.assert_close(found[r], alone, rtol=1e-12, atol=1e-12)


@every_kind
def test_no_logit_depends_on_a_later_token(kind):
    model = built(kind)
    seen = []
    model.embedding.register_forward_hook(lambda module, args, out: seen.append(out.requires_grad_()) or out)
    logits = model(tokens(1, 12))
    (slope,) = torch.autograd.grad(logits[0, 6].sum(), seen[0])
    assert slope[0, 7:].abs().max() == 0 and (slope[0, 5:7].abs().amax(1) > 0).all()


@every_kind
@pytest.mark.parametrize("chunk", [2, 512])
def test_prompts_of_unequal_length_are_drawn_as_each_alone(kind, chunk):
    """A row whose prompt is read must keep its state while longer prompts are read."""
    model = built(kind)
    condition = {"tokens": tokens(4, 9), "length": torch.tensor([1, 9, 4, 2])}
    check_strategy(Autoregressive(max_tokens=12, prefill=chunk), {"model": model}, SPACE, condition)


@pytest.mark.parametrize(("kind", "cell"), [("rnn", torch.nn.RNN), ("gru", torch.nn.GRU), ("lstm", torch.nn.LSTM)])
def test_a_layer_equals_the_cell_written_out(kind, cell):
    """The equations of the file's docstring, step by step, with the layer's own matrices."""
    layer = built(kind).blocks[0].cell
    assert isinstance(layer, cell)
    x, h = torch.randn(3, 5, 16, dtype=torch.double), torch.zeros(3, 16, dtype=torch.double)
    c = h
    found = layer(x)[0]
    for t in range(5):
        given = F.linear(x[:, t], layer.weight_ih_l0, layer.bias_ih_l0)
        back = F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)
        if kind == "rnn":
            h = torch.tanh(given + back)
        elif kind == "gru":
            (r, z, n), (br, bz, bn) = given.chunk(3, 1), back.chunk(3, 1)
            z = torch.sigmoid(z + bz)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + br) * bn) + z * h
        else:
            i, f, g, o = (given + back).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        torch.testing.assert_close(found[:, t], h, rtol=1e-12, atol=1e-12)


def test_the_scan_equals_the_loop_from_a_given_state():
    layer = GatedScan(8, 12, 4).double()
    fill(layer)
    state = layer.state(3)
    state.tensors = tuple(torch.randn_like(tensor) for tensor in state.tensors)
    x = torch.randn(3, 7, 8, dtype=torch.double)
    before, h = state.tensors
    expected = []
    for t in range(7):
        seen = torch.cat((before, x[:, t : t + 1]), 1)
        mixed = sum(layer.convolution.kernel[j] * seen[:, -1 - j] for j in range(4))
        before = seen[:, 1:]
        z = layer.update(mixed).sigmoid()
        h = (1 - z) * h + z * layer.new(mixed)
        expected.append(layer.out(F.silu(layer.gate(x[:, t])) * h))
    found = layer(x, None, state)
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state.tensors[1], h, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("time", [1, 2, 3, 8, 13])
def test_the_scan_of_any_length(time):
    a, b = torch.rand(2, time, 3, dtype=torch.double), torch.randn(2, time, 3, dtype=torch.double)
    h, expected = torch.zeros(2, 3, dtype=torch.double), []
    for t in range(time):
        h = a[:, t] * h + b[:, t]
        expected.append(h)
    torch.testing.assert_close(scan(a, b), torch.stack(expected, 1), rtol=1e-12, atol=1e-12)


def test_the_field_of_the_convolutions_is_exactly_what_the_dilations_say():
    config = CausalCNN(width=16, layers=4, dilations=(1, 2, 4))
    field = 1 + 2 * (1 + 2 + 4 + 1)
    model = build_seeded(lambda: config.build(SPACE)).double()
    fill(model)
    row = tokens(1, field + 2)
    first, second = row.clone(), row.clone()
    first[0, 1], second[0, 2] = 9 - row[0, 1], 9 - row[0, 2]
    last = model(row)[0, -1]
    assert model(first)[0, -1].equal(last) and not model(second)[0, -1].equal(last)


def test_taps_are_the_sum_over_earlier_tokens():
    taps, x = Taps(3, 3, 2), torch.randn(2, 6, 3)
    found = torch.stack(taps(x, None, None), 2)
    for t in range(6):
        for j in range(3):
            expected = x[:, t - 2 * j] if t >= 2 * j else torch.zeros(2, 3)
            assert found[:, t, j].equal(expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "canon"])
def test_a_state_is_told_how_many_tokens_a_row_reads(kind):
    """A row that reads none keeps its state bit for bit."""
    model = built(kind)
    cache = model.cache(3, 12)
    model(tokens(3, 4), torch.zeros(3, 4, dtype=torch.long), cache)
    before = [tuple(tensor.clone() for tensor in layer.tensors) for layer in cache]
    for layer in cache:
        layer.expect(torch.tensor([0, 2, 5]))
    model(tokens(3, 5), torch.zeros(3, 5, dtype=torch.long), cache)
    for layer, old in zip(cache, before, strict=True):
        assert isinstance(layer, State)
        for a, b in zip(layer.tensors, old, strict=True):
            assert a[0].equal(b[0]) and not a[1].equal(b[1])


@pytest.mark.parametrize("kind", ["rnn", "lstm", "mingru"])
def test_an_untrained_model_gives_every_token_the_same_probability(kind):
    model = build_seeded(lambda: KINDS[kind].build(SPACE))
    assert F.cross_entropy(model(tokens(2, 12)).flatten(0, 1), tokens(24)).item() == pytest.approx(math.log(11))
