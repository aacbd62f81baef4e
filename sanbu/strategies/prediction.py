"""A prediction is a sample of one step: scores_BO at the last token of each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class State:
    """tokens_BT and length_B in, scores_BO out."""

    tokens: Tensor
    length: Tensor
    scores: Tensor
    done: Tensor


class Prediction(StrategyConfig):
    """No drawing: what a model that scores says of its input."""

    kind: Literal["prediction"] = "prediction"
    families: ClassVar[tuple[str, ...]] = ("scorer",)
    draws: ClassVar[bool] = False

    def build(self, space: Space) -> Strategy:
        return PredictionStrategy()


class PredictionStrategy:
    """One pass through the model."""

    def begin(self, condition: Batch, seeds: Tensor) -> State:
        """From tokens_BT padded on the right, and length_B. Seeds play no part."""
        nothing = torch.zeros(len(seeds), 0, device=seeds.device)
        return State(condition["tokens"], condition["length"], nothing, torch.zeros_like(seeds, dtype=torch.bool))

    def advance(self, models: Models, state: State) -> State:
        """All scores at once."""
        scores = models["model"](state.tokens, state.length - 1)
        return State(state.tokens, state.length, scores, torch.ones_like(state.done))

    def draft(self, state: State) -> Draft:
        """Nothing, then everything."""
        known = state.done[:, None].expand(state.scores.shape)
        return Draft(state.scores, known, state.done, state.done.long())
