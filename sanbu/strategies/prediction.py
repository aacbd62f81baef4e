"""Prediction: one evaluation gives scores_BO at the last token of each input (O outputs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class PredictionState:
    """Inputs tokens_BT and length_B; output scores_BO, empty before the step."""

    tokens: Tensor
    length: Tensor
    scores: Tensor
    done: Tensor


class Prediction(StrategyConfig):
    """No sampling: the scores that the model gives its input."""

    kind: Literal["prediction"] = "prediction"
    families: ClassVar[tuple[str, ...]] = ("scorer",)
    draws: ClassVar[bool] = False

    def build(self, space: Space) -> Strategy:
        return PredictionStrategy()


class PredictionStrategy:
    """One pass through the model."""

    def begin(self, condition: Batch, seeds: Tensor) -> PredictionState:
        """From tokens_BT, padded on the right, and length_B. Seeds are not used."""
        empty = torch.zeros(len(seeds), 0, device=seeds.device)
        return PredictionState(
            condition["tokens"], condition["length"], empty, torch.zeros_like(seeds, dtype=torch.bool)
        )

    def advance(self, models: Models, state: PredictionState) -> PredictionState:
        """Compute all scores: the only step."""
        scores = models["model"](state.tokens, state.length - 1)
        return PredictionState(state.tokens, state.length, scores, torch.ones_like(state.done))

    def draft(self, state: PredictionState) -> Draft:
        """The scores; all are committed once they are computed."""
        committed = state.done[:, None].expand(state.scores.shape)
        return Draft(state.scores, committed, state.done, state.done.long())
