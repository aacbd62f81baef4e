"""Quantizers against their definitions: exact bijections, straight-through gradients, moving averages, prefixes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbu.config import ConfigError, SanbuError, load
from sanbu.layers.quantizers.fsq import Fsq
from sanbu.layers.quantizers.quantizer import QuantizerConfig, occurrences, use_of
from sanbu.layers.quantizers.rvq import Rvq
from sanbu.noise import Noise


def built(config, seed=0):
    torch.manual_seed(seed)
    return config.build()


def trained(config, vectors, rounds=1):
    quantizer = built(config)
    for number in range(rounds):
        quantizer.follow(vectors, Noise("follow", number))
    return quantizer


# -- FSQ --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(8, 8, 8), (5, 3), (2,), (8, 5, 5, 5)])
def test_every_code_has_a_vector_of_its_own_and_back(levels):
    quantizer = built(Fsq(codebooks=2, levels=levels))
    codes = torch.stack((torch.arange(quantizer.codes), torch.arange(quantizer.codes).flip(0)))[None]
    vectors = quantizer.vectors(codes)
    assert len(vectors[0, :, : len(levels)].unique(dim=0)) == quantizer.codes
    assert vectors.abs().max() == 1
    logits = vectors.clamp(-1 + 1e-6, 1 - 1e-6).atanh()  # the encoder's numbers that mean these values
    found = quantizer(logits)
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.values, vectors)


def test_values_are_a_grid_of_evenly_spaced_levels():
    quantizer = built(Fsq(codebooks=1, levels=(3, 2)))
    found = quantizer.vectors(torch.arange(6)[None, None])[0]
    expected = [(a, b) for b, a in itertools.product((-1.0, 1.0), (-1.0, 0.0, 1.0))]
    assert found.tolist() == [list(pair) for pair in expected]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-30, 30, allow_subnormal=False), min_size=6, max_size=6))
def test_rounding_finds_the_nearest_level(numbers):
    quantizer = built(Fsq(codebooks=2, levels=(7, 4, 3)))
    vectors = torch.tensor(numbers)[None, None]
    found = quantizer(vectors)
    bounded = quantizer.unquantized(vectors)
    half_step = 1 / (torch.tensor([7, 4, 3, 7, 4, 3]) - 1)
    assert ((found.values - bounded).abs() <= half_step + 1e-6).all()
    assert torch.equal(quantizer.vectors(found.codes), found.values)


def test_the_gradient_passes_the_rounding():
    quantizer = built(Fsq(codebooks=1, levels=(8, 5)))
    vectors = torch.tensor([[[0.3, -1.2]]], requires_grad=True)
    quantizer(vectors).values.sum().backward()
    expected = 1 - vectors.detach().tanh() ** 2
    torch.testing.assert_close(vectors.grad, expected)


# -- RVQ --------------------------------------------------------------------------------------------------------------


def test_a_vector_is_the_sum_of_nearest_codes_of_what_is_left():
    quantizer = trained(Rvq(codebooks=3, size=6, dimensions=4), torch.randn(2, 20, 4))
    vectors = torch.randn(2, 9, 4)
    found = quantizer(vectors)
    for row, frame in itertools.product(range(2), range(9)):
        left, total = quantizer.unquantized(vectors)[row, frame], 0
        for level in range(3):
            distances = (quantizer.codebook[level] - left).norm(dim=1)
            assert int(found.codes[row, level, frame]) == int(distances.argmin())
            left = left - quantizer.codebook[level][distances.argmin()]
            total = total + quantizer.codebook[level][distances.argmin()]
        torch.testing.assert_close(found.values[row, frame], total, atol=1e-6, rtol=0)
    torch.testing.assert_close(quantizer.vectors(found.codes), found.values, atol=1e-6, rtol=0)


def test_the_first_codebooks_alone_are_what_rows_of_that_depth_learn():
    quantizer = trained(Rvq(codebooks=4, size=8, dimensions=4), torch.randn(2, 30, 4))
    vectors = torch.randn(4, 7, 4)
    found = quantizer(vectors, torch.tensor([1, 2, 3, 4]))
    whole = quantizer(vectors)
    assert torch.equal(found.codes, whole.codes)
    for row in range(4):
        prefix = quantizer.vectors(whole.codes[row : row + 1, : row + 1])
        torch.testing.assert_close(found.values[row : row + 1], prefix, atol=1e-6, rtol=0)
    z = quantizer.unquantized(vectors)
    errors = [(quantizer.vectors(whole.codes[:, :k]) - z).square().mean() for k in range(1, 5)]
    assert errors[0] > errors[1] > errors[2] > errors[3]


def test_commitment_is_the_mean_squared_distance_over_the_codebooks_in_use_and_reaches_the_encoder_alone():
    quantizer = trained(Rvq(codebooks=2, size=4, dimensions=3), torch.randn(1, 30, 3))
    vectors = torch.randn(2, 5, 3, requires_grad=True)
    found = quantizer(vectors, torch.tensor([1, 2]))
    z, first, both = (quantizer.unquantized(vectors), *(quantizer.vectors(found.codes[:, :k]) for k in (1, 2)))
    one, two = (z - first).square().mean((1, 2)), (z - both).square().mean((1, 2))
    torch.testing.assert_close(found.commitment, torch.stack((one[0], (one[1] + two[1]) / 2)))
    found.commitment[0].backward()
    (expected,) = torch.autograd.grad(one[0], vectors)
    torch.testing.assert_close(vectors.grad, expected)
    assert not vectors.grad[1].any() and not list(quantizer.parameters())


def test_the_gradient_of_the_values_is_that_without_codes():
    quantizer = trained(Rvq(codebooks=2, size=4, dimensions=3), torch.randn(1, 30, 3))
    vectors = torch.randn(1, 5, 3, requires_grad=True)
    weights = torch.randn(1, 5, 3)
    (found,) = torch.autograd.grad((weights * quantizer(vectors).values).sum(), vectors)
    (expected,) = torch.autograd.grad((weights * quantizer.unquantized(vectors)).sum(), vectors)
    assert torch.equal(found, expected) and found.any()


def test_vectors_that_are_nearly_alike_are_told_apart():
    """An encoder gains nothing by small differences: the middle is taken away and the rest brought to one length."""
    vectors = 3 + 1e-3 * torch.randn(2, 50, 4)
    quantizer = trained(Rvq(codebooks=1, size=16, dimensions=4), vectors)
    found = quantizer(vectors)
    assert len(found.codes.unique()) > 11 and found.commitment.min() > 0.05
    z = quantizer.unquantized(vectors)
    torch.testing.assert_close(z.mean(-1), torch.zeros(2, 50), atol=1e-3, rtol=0)
    assert z.flatten(0, 1).mean(0).abs().max() < 0.3


def test_codes_are_moving_averages_of_the_vectors_that_chose_them():
    quantizer = built(Rvq(codebooks=1, size=2, dimensions=2, decay=0.75, dead=0.0))
    quantizer.codebook[0] = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    quantizer.counts[0] = torch.tensor([2.0, 2.0])
    quantizer.sums[0] = 2 * quantizer.codebook[0]
    quantizer.middle = torch.tensor([0.5, 0.0])
    vectors = torch.tensor([[[-3.0, 0.0], [-1.0, 2.0], [2.0, 0.0], [-2.0, 2.0]]])
    quantizer.follow(vectors, Noise("x"))
    torch.testing.assert_close(quantizer.middle, torch.tensor([0.75 * 0.5 - 0.25, 0.25]))
    z = quantizer.unquantized(vectors)[0]
    counts = [0.75 * 2 + 0.25 * 3, 0.75 * 2 + 0.25 * 1]
    sums = [
        0.75 * torch.tensor([-2.0, 2.0]) + 0.25 * z[[0, 1, 3]].sum(0),
        0.75 * torch.tensor([2.0, -2.0]) + 0.25 * z[2],
    ]
    torch.testing.assert_close(quantizer.codebook[0], torch.stack((sums[0] / counts[0], sums[1] / counts[1])))


def test_codes_begin_as_vectors_and_dead_ones_become_vectors_again():
    vectors = torch.randn(4, 50, 4)
    quantizer = trained(Rvq(codebooks=1, size=16, dimensions=4), vectors)
    z = quantizer.unquantized(vectors).flatten(0, 1)
    assert torch.cdist(quantizer.codebook[0], z).min(1).values.max() < 1e-3
    place = quantizer.codebook[0, 3].clone()
    quantizer.codebook[0, 3] = 100  # no vector is near: the code dies, and becomes a vector
    quantizer.sums[0, 3] = 100 * quantizer.counts[0, 3]
    for number in range(250):
        quantizer.follow(vectors, Noise("later", number))
    assert quantizer.codebook.abs().max() < 3 and not torch.equal(quantizer.codebook[0, 3], place)
    share, perplexity = use_of(occurrences(quantizer(vectors).codes, 16))
    assert share[0] == 1 and perplexity[0] > 12


def test_a_round_is_a_function_of_its_noise():
    vectors = torch.randn(2, 20, 2)
    first, second = (trained(Rvq(codebooks=2, size=8, dimensions=2), vectors, 3) for _ in range(2))
    assert torch.equal(first.codebook, second.codebook)


# -- common -----------------------------------------------------------------------------------------------------------


def test_use_counts_codes_and_perplexity():
    codes = torch.tensor([[[0, 1, 2, 3], [0, 0, 0, 0]], [[0, 1, 2, 3], [0, 0, 5, 5]]])
    counts = occurrences(codes, 8)
    assert counts.tolist() == [[2, 2, 2, 2, 0, 0, 0, 0], [6, 0, 0, 0, 0, 2, 0, 0]]
    share, perplexity = use_of(counts)
    assert share.tolist() == [0.5, 0.25]
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    torch.testing.assert_close(perplexity, torch.stack((torch.tensor(4.0), entropy.exp())))


def test_bits_of_a_frame():
    assert Fsq(codebooks=4, levels=(8, 8, 8)).bits == 36
    assert Rvq(codebooks=4, size=512).bits == 36


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (torch.full((1, 4, 2), 512), "given 512, allowed: 0 to 511"),
        (torch.full((1, 4, 2), -1), "given -1, allowed: 0 to 511"),
        (torch.zeros(1, 3, 2, dtype=torch.long), r"given the shape \[1, 3, 2\], allowed: rows, 4 codebooks, frames"),
        (torch.zeros(4, 2, dtype=torch.long), "given the shape"),
        (torch.zeros(1, 4, 0, dtype=torch.long), "given no frames"),
        (torch.zeros(1, 4, 2), "given float32 numbers, allowed: whole numbers"),
    ],
)
def test_wrong_codes_are_one_line(codes, said):
    with pytest.raises(SanbuError, match=said):
        built(Fsq()).vectors(codes)


def test_residual_codes_may_be_a_prefix_but_not_more():
    quantizer = built(Rvq())
    assert quantizer.vectors(torch.zeros(1, 1, 3, dtype=torch.long)).shape == (1, 3, 32)
    with pytest.raises(SanbuError, match="allowed: rows, 1 to 4 codebooks, frames"):
        quantizer.vectors(torch.zeros(1, 5, 3, dtype=torch.long))


def test_impossible_quantizers_are_refused():
    with pytest.raises(ConfigError, match="at least 2 levels"):
        load(QuantizerConfig, {"kind": "fsq", "levels": [8, 1]})
    with pytest.raises(ConfigError, match="did you mean 'rvq'"):
        load(QuantizerConfig, {"kind": "rqv"})
