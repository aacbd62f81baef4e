"""Random numbers: each row has its own, and they follow the right distribution."""

import torch

from sanbu.noise import Noise, key, mix, mix_int


def test_a_row_is_the_same_in_any_batch():
    for draw in (
        lambda noise, rows: noise.normal(rows, 3, 4),
        lambda noise, rows: noise.uniform(rows),
        lambda noise, rows: noise.integers(7, rows, 2),
    ):
        whole = draw(Noise(1, "a", 5), 12)
        assert draw(Noise(1, "a", 5, first_row=4), 3).equal(whole[4:7])
        assert not draw(Noise(1, "b", 5), 12).equal(whole)
        assert not draw(Noise(2, "a", 5), 12).equal(whole)


def test_draws_differ_and_repeat():
    noise, again = Noise(3), Noise(3)
    first, second = noise.normal(100), noise.normal(100)
    assert not first.equal(second)
    assert again.normal(100).equal(first) and again.normal(100).equal(second)


def test_moments_within_five_standard_errors():
    x = Noise(0, "moments").normal(1000, 1000).double()
    assert (
        abs(x.mean()) < 5e-3 and abs(x.var() - 1) < 5 * 2**0.5 * 1e-3 and abs(x.pow(4).mean() - 3) < 5 * 96**0.5 * 1e-3
    )
    u = Noise(0, "moments").uniform(1000, 1000)
    assert u.min() > 0 and u.max() < 1
    counts = torch.histc(u, 100, 0, 1)
    assert (counts - 1e4).square().sum() / 1e4 < 99 + 5 * (2 * 99) ** 0.5  # chi-square with 99 degrees of freedom
    rows = torch.corrcoef(x[:50])
    assert (rows - torch.eye(50)).abs().max() < 5 / 1000**0.5


def test_together_is_shared_and_a_permutation():
    order = Noise(1, "x").together().permutation(1000)
    assert order.sort().values.equal(torch.arange(1000))
    assert Noise(1, "x", first_row=99).together().permutation(1000).equal(order)


def test_mix_agrees_with_splitmix64():
    # first outputs of SplitMix64 from state 1234567, as published with its reference code
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state = 1234567
    for value in expected:
        state += 0x9E3779B97F4A7C15
        assert mix_int(state) % 2**64 == value
        assert (
            int(mix(torch.tensor(state if state < 2**63 else state % 2**64 - (2**64 if state % 2**64 >= 2**63 else 0))))
            % 2**64
            == value
        )
    assert key(1, "a") != key("a", 1)
