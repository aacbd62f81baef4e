"""A picture level by level, each sampled from p(x_i | x_<i), with the model's cached activations.

Levels that are given are taken over, and the rest is drawn in order: exact where the given ones come first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.noise import uniform_at
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.filters import draw
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class State:
    """levels_BCHW so far, the first `index` of them drawn (rows, columns, channels); cache: what the model keeps."""

    levels: Tensor
    label: Tensor
    seeds: Tensor
    done: Tensor
    evaluations: Tensor
    known: Tensor | None
    mask: Tensor | None
    index: int = 0
    cache: Any = None


class PixelByPixel(StrategyConfig):
    """A picture level by level, rows from above, each level from its law given those before; activations are kept."""

    kind: Literal["pixel-by-pixel"] = "pixel-by-pixel"
    families: ClassVar[tuple[str, ...]] = ("pixels",)
    temperature: float = Field(1.0, ge=0, description="0 takes the most likely level")

    def build(self, space: Space) -> Strategy:
        return PixelByPixelStrategy(self, space)


class PixelByPixelStrategy:
    """Draws levels in order."""

    def __init__(self, config: PixelByPixel, space: Space) -> None:
        self.config, self.shape = config, space.shape

    def begin(self, condition: Batch, seeds: Tensor) -> State:
        """From label_B, and known_BCHW under mask_BCHW where part of the picture is given."""
        levels = torch.zeros(len(seeds), *self.shape, dtype=torch.long, device=seeds.device)
        zeros = torch.zeros_like(seeds)
        known, mask = condition.get("known"), condition.get("mask")
        return State(levels, condition["label"], seeds, zeros.bool(), zeros, known, mask)

    def advance(self, models: Models, state: State) -> State:
        """One more level of each row. Writes into the state."""
        model, (channels, _, width) = models["model"], self.shape
        if state.cache is None:
            state.cache = model.cache(len(state.levels))
        logits_BK = model.next(state.levels, state.label, state.index, state.cache)
        place, channel = divmod(state.index, channels)
        row, column = divmod(place, width)
        level_B = self._choose(logits_BK, state)
        if state.mask is not None and state.known is not None:
            level_B = torch.where(state.mask[:, channel, row, column], state.known[:, channel, row, column], level_B)
        state.levels[:, channel, row, column] = level_B
        state.index += 1
        state.evaluations = state.evaluations + ~state.done
        state.done = state.done | (state.index == math.prod(self.shape))
        return state

    def draft(self, state: State) -> Draft:
        """Levels so far; those not drawn yet are 0 and not committed."""
        channels, height, width = self.shape
        order = torch.arange(math.prod(self.shape), device=state.levels.device).view(height, width, channels)
        committed = (order.permute(2, 0, 1) < state.index).expand_as(state.levels)
        return Draft(state.levels, committed, state.done, state.evaluations)

    def _choose(self, logits_BK: Tensor, state: State) -> Tensor:
        if self.config.temperature == 0:
            return logits_BK.argmax(1)
        return draw(logits_BK.float() / self.config.temperature, uniform_at(state.seeds, state.seeds * 0 + state.index))
