"""All at once: one evaluation turns noise into a picture."""

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
class State:
    """sample_BCHW once it is drawn."""

    sample: Tensor
    label: Tensor
    seeds: Tensor
    done: Tensor


class OneShot(StrategyConfig):
    """A picture at once, from noise."""

    kind: Literal["one-shot"] = "one-shot"
    families: ClassVar[tuple[str, ...]] = ("latent", "generator")
    temperature: float = Field(1.0, ge=0, description="deviation of the noise")

    def build(self, space: Space) -> Strategy:
        return OneShotStrategy(self, space)


class OneShotStrategy:
    """x = model.draw(noise, label)."""

    def __init__(self, config: OneShot, space: Space) -> None:
        self.config, self.shape = config, space.shape

    def begin(self, condition: Batch, seeds: Tensor) -> State:
        """From label_B. Raises SanbuError when part of the picture is given: a picture at once cannot take it over."""
        if "known" in condition:
            raise SanbuError(
                "a picture drawn at once cannot complete a given one; use a pixel by pixel or refinement run"
            )
        return State(torch.zeros(len(seeds), *self.shape, device=seeds.device), condition["label"], seeds, seeds < -1)

    def advance(self, models: Models, state: State) -> State:
        """The one step."""
        model = models["model"]
        noise = normal_at(state.seeds, 0, math.prod(model.latent)) * self.config.temperature
        return State(model.draw(noise, state.label), state.label, state.seeds, torch.ones_like(state.done))

    def draft(self, state: State) -> Draft:
        """The picture."""
        committed = state.done.view(-1, 1, 1, 1).expand_as(state.sample)
        return Draft(state.sample, committed, state.done, state.done.long())
