"""All at once: one evaluation turns noise into a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.data.kinds import Space
from sanbu.noise import normal_at
from sanbu.strategies import kinds
from sanbu.strategies.strategy import Batch, Draft, Models


@dataclass
class State:
    """sample_BCHW once it is drawn."""

    sample: Tensor
    label: Tensor
    seeds: Tensor
    done: Tensor


class OneShotStrategy:
    """x = model.draw(noise, label)."""

    def __init__(self, config: kinds.OneShot, space: Space) -> None:
        self.config, self.shape = config, space.shape

    def begin(self, condition: Batch, seeds: Tensor) -> State:
        """From label_B. Raises SanbuError when part of the picture is given: a picture at once cannot take it over."""
        if "known" in condition:
            raise SanbuError("a picture drawn at once cannot complete a given one; use a pixel by pixel or refinement run")
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
