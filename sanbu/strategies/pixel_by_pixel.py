"""Pixel-by-pixel sampling: each level is drawn from p(x_i | x_<i), with the model's cached activations.

Given levels are kept, and the others are drawn in order. So a completion is an exact sample of p(rest | given) only if
the given levels come first in that order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.noise import uniform_at
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.filters import draw, temperature
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class PixelState:
    """levels_BCHW, the first `index` of them drawn, in the order rows, columns, channels; cache: of the model."""

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
    """A picture level by level, from the top row down, each level drawn given all levels before it."""

    kind: Literal["pixel-by-pixel"] = "pixel-by-pixel"
    families: ClassVar[tuple[str, ...]] = ("pixels",)
    temperature: float = Field(1.0, ge=0, description="logits are divided by this; 0 takes the most likely level")

    def build(self, space: Space) -> Strategy:
        return PixelByPixelStrategy(self, space)


def unseen(mask_BCHW: Tensor) -> bool:
    """Whether every element that is given comes after every element to draw, in the order of drawing."""
    order_BN = mask_BCHW.permute(0, 2, 3, 1).flatten(1).long()
    return bool(order_BN.any() and (order_BN.diff() >= 0).all() and not order_BN[:, 0].any())


class PixelByPixelStrategy:
    """Draws levels in order."""

    def __init__(self, config: PixelByPixel, space: Space) -> None:
        self.config, self.shape = config, space.shape

    def begin(self, condition: Batch, seeds: Tensor) -> PixelState:
        """From label_B; to complete pictures also known_BCHW (levels) and mask_BCHW (True where they are given).

        Raises SanbuError if no pixel is drawn after a given one, as then none would follow from the given ones.
        """
        levels = torch.zeros(len(seeds), *self.shape, dtype=torch.long, device=seeds.device)
        zeros = torch.zeros_like(seeds)
        known, mask = condition.get("known"), condition.get("mask")
        if mask is not None and unseen(mask):
            raise SanbuError(
                "picture: every given pixel comes after the pixels to draw, but 'pixel-by-pixel' draws from the top row"
                " down and sees only what is above; give the upper part, or use a run with 'refinement'"
            )
        return PixelState(levels, condition["label"], seeds, zeros.bool(), zeros, known, mask)

    def advance(self, models: Models, state: PixelState) -> PixelState:
        """Draw one more level of each row. Modifies the state in place."""
        model, (channels, _, width) = models["model"], self.shape
        if state.cache is None:
            state.cache = model.cache(len(state.levels))
        logits_BK = model.next(state.levels, state.label, state.index, state.cache)
        place, channel = divmod(state.index, channels)
        row, column = divmod(place, width)
        level_B = self._choose(logits_BK, state)
        if state.mask is not None and state.known is not None:
            given_B = state.mask[:, channel, row, column]
            level_B = torch.where(given_B, state.known[:, channel, row, column], level_B)
        state.levels[:, channel, row, column] = level_B
        state.index += 1
        state.evaluations = state.evaluations + (~state.done).long()
        state.done = state.done | (state.index == math.prod(self.shape))
        return state

    def draft(self, state: PixelState) -> Draft:
        """Levels so far. Levels not drawn yet are 0 and not committed."""
        channels, height, width = self.shape
        order = torch.arange(math.prod(self.shape), device=state.levels.device).view(height, width, channels)
        committed = (order.permute(2, 0, 1) < state.index).expand_as(state.levels)
        return Draft(state.levels, committed, state.done, state.evaluations)

    def _choose(self, logits_BK: Tensor, state: PixelState) -> Tensor:
        if self.config.temperature == 0:
            return logits_BK.argmax(1)
        uniform_B = uniform_at(state.seeds, torch.full_like(state.seeds, state.index))
        return draw(temperature(self.config.temperature)(logits_BK.float(), None), uniform_B)
