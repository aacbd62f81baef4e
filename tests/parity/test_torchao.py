"""Int8 weights compared with torchao."""

import copy

import pytest
import torch
from torch import nn

from sanbu.serve.weights.int8 import Int8Linear

quantization = pytest.importorskip("torchao.quantization")


@pytest.fixture(scope="module")
def both():
    """The same layer quantised by torchao and by Sanbu."""
    torch.manual_seed(0)
    plain = nn.Linear(256, 512)
    theirs = nn.Sequential(copy.deepcopy(plain))
    quantization.quantize_(theirs, quantization.Int8WeightOnlyConfig(version=2))
    return plain, theirs, Int8Linear(plain)


def test_scales_and_whole_numbers_are_those_of_torchao(both):
    """torchao divides by 127.5 and Sanbu by 127, so an integer may differ by one."""
    _, theirs, ours = both
    weight = theirs[0].weight
    torch.testing.assert_close(weight.scale.flatten() * 127.5, ours.scale * 127, rtol=1e-5, atol=0)
    assert (weight.qdata.int() - ours.whole.int()).abs().max() <= 1


def test_products_are_as_near_to_the_full_ones_as_those_of_torchao(both):
    plain, theirs, ours = both
    x = torch.randn(100, 256)  # a batch of this size is multiplied in float32
    with torch.no_grad():
        wanted = plain(x)
        off, of_theirs = ((one(x) - wanted).pow(2).mean().sqrt() for one in (ours, theirs))
    assert off < 1.05 * of_theirs and off < 0.01 * wanted.std()
