"""One-shot sampling: one evaluation of the model maps noise to a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.noise import normal_at
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class OneShotState:
    """sample_BCHW: zeros before the step, pictures after it."""

    sample: Tensor
    label: Tensor
    seeds: Tensor
    done: Tensor


class OneShot(StrategyConfig):
    """A whole picture in one evaluation, from noise."""

    kind: Literal["one-shot"] = "one-shot"
    families: ClassVar[tuple[str, ...]] = ("latent", "generator")
    temperature: float = Field(1.0, ge=0, description="standard deviation of the noise")

    def build(self, space: Space) -> Strategy:
        return OneShotStrategy(self, space)


class OneShotStrategy:
    """x = model.draw(noise, label)."""

    def __init__(self, config: OneShot, space: Space) -> None:
        self.config, self.shape = config, space.shape

    def begin(self, condition: Batch, seeds: Tensor) -> OneShotState:
        """From label_B. Raises SanbuError if part of the picture is given, which this strategy cannot complete."""
        if "known" in condition:
            raise SanbuError(
                "the strategy 'one-shot' cannot complete a given picture; use a run with 'pixel-by-pixel' or"
                " 'refinement'"
            )
        sample = torch.zeros(len(seeds), *self.shape, device=seeds.device)
        return OneShotState(sample, condition["label"], seeds, torch.zeros_like(seeds, dtype=torch.bool))

    def advance(self, models: Models, state: OneShotState) -> OneShotState:
        """Draw all pictures: the only step."""
        model = models["model"]
        noise = normal_at(state.seeds, 0, math.prod(model.latent)) * self.config.temperature
        return OneShotState(model.draw(noise, state.label), state.label, state.seeds, torch.ones_like(state.done))

    def draft(self, state: OneShotState) -> Draft:
        """The pictures; all elements are committed once they are drawn."""
        committed = state.done.view(-1, 1, 1, 1).expand_as(state.sample)
        return Draft(state.sample, committed, state.done, state.done.long())
