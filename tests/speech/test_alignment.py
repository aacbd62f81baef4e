"""Alignment of symbols and frames: against brute force, padding, exact sums."""

import itertools

import pytest
import torch

from sanbu.layers.alignment import expand, search_durations, whole_durations


def brute_force(scores_ST):
    """The best durations among all compositions of T into S parts."""
    S, T = scores_ST.shape
    best = None
    for cuts in itertools.combinations(range(1, T), S - 1):
        ends = (0, *cuts, T)
        total = sum(scores_ST[s, ends[s] : ends[s + 1]].sum().item() for s in range(S))
        if best is None or total > best[0]:
            best = total, [ends[s + 1] - ends[s] for s in range(S)]
    return best[1]


@pytest.mark.parametrize(("S", "T"), [(1, 1), (1, 5), (2, 2), (3, 7), (4, 9), (5, 5)])
def test_search_equals_brute_force(S, T):
    scores = torch.randn(20, S, T, dtype=torch.float64, generator=torch.Generator().manual_seed(S * 10 + T))
    found = search_durations(scores, torch.full((20,), S), torch.full((20,), T))
    assert found.tolist() == [brute_force(row) for row in scores]


@pytest.mark.parametrize("junk", [0.0, 1e9, float("nan")])
def test_padding_is_not_read(junk):
    generator = torch.Generator().manual_seed(3)
    symbols, frames = torch.tensor([4, 2, 3]), torch.tensor([8, 5, 3])
    scores = torch.full((3, 6, 11), junk)
    for row, (s, t) in enumerate(zip(symbols, frames, strict=True)):
        scores[row, :s, :t] = torch.randn(int(s), int(t), generator=generator)
    found = search_durations(scores, symbols, frames)
    assert found.sum(1).tolist() == frames.tolist()
    for row, (s, t) in enumerate(zip(symbols.tolist(), frames.tolist(), strict=True)):
        assert found[row, :s].tolist() == brute_force(scores[row, :s, :t])
        assert not found[row, s:].any()


def test_fewer_frames_than_symbols_are_refused():
    with pytest.raises(ValueError, match=r"given \[3\] symbols for \[2\] frames"):
        search_durations(torch.zeros(1, 3, 2), torch.tensor([3]), torch.tensor([2]))


def test_expand_equals_repeat_interleave():
    hidden = torch.randn(3, 4, 2)
    durations = torch.tensor([[1, 0, 3, 2], [0, 0, 0, 1], [2, 2, 2, 2]])
    found = expand(hidden, durations)
    assert found.shape == (3, 8, 2)
    for row in range(3):
        want = hidden[row].repeat_interleave(durations[row], 0)
        assert torch.equal(found[row, : len(want)], want)
        assert not found[row, len(want) :].any()


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.0, 1.7])
def test_rounding_keeps_the_sum_and_the_rate(rate):
    real = torch.rand(50, 200, generator=torch.Generator().manual_seed(1)) * 9
    found = whole_durations(real, rate)
    assert (found >= 0).all()
    assert torch.equal(found.sum(1), (real.double().sum(1) / rate).round().long())


def test_a_rate_of_four_fifths_makes_a_quarter_more_frames():
    real = torch.full((1, 40), 4.0)
    assert (int(whole_durations(real, 0.8).sum()), int(whole_durations(real).sum())) == (200, 160)
