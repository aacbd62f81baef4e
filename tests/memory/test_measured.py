"""Estimates within 15 percent of what a process measures. See also `python -m tests.memory.measure`."""

import sys

import pytest

from sanbu.memory.training import estimate
from tests.memory.measure import measured, recipe_of

TEN = [
    "gpt1 model.width=384 model.layers=6",
    "gpt2 model.width=384 model.layers=6",
    "gpt3 model.width=384 model.layers=8",
    "llama model.width=384 schedule.batch=32",
    "pixelcnn model.width=256 model.layers=6",
    "image-gpt model.width=256 schedule.batch=64",
    "vae model.width=2048 model.layers=2",
    "gan model.width=1536",
    "ddpm model.width=64",
    "dit model.width=384 model.layers=6",
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("words", TEN)
def test_the_estimate_is_within_15_percent_of_the_measurement(words):
    need = estimate(recipe_of(*words.split()))
    assert need.total == pytest.approx(measured(*words.split()), rel=0.15)
