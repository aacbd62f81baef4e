"""Prediction: one evaluation gives outputs_BO of an input x, or scores_BO at the last token of a text (O outputs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class PredictionState:
    """inputs: the arguments of the model, x or tokens_BT and the last position; scores_BO, empty before the step."""

    inputs: tuple[Tensor, ...]
    scores: Tensor
    done: Tensor


class Prediction(StrategyConfig):
    """No sampling: the scores that the model gives its input."""

    kind: Literal["prediction"] = "prediction"
    families: ClassVar[tuple[str, ...]] = ("scorer", "predictor")
    draws: ClassVar[bool] = False

    def build(self, space: Space) -> Strategy:
        return PredictionStrategy()


class PredictionStrategy:
    """One pass through the model."""

    def begin(self, condition: Batch, seeds: Tensor) -> PredictionState:
        """From x, or from tokens_BT, padded on the right, and length_B. Seeds are not used.

        Raises SanbuError for a condition without input: a label, for example.
        """
        if not {"x", "tokens"} & condition.keys():
            raise SanbuError("strategy: prediction gives scores of an input, not samples; use `sanbu evaluate`")
        empty = torch.zeros(len(seeds), 0, device=seeds.device)
        inputs = (condition["x"],) if "x" in condition else (condition["tokens"], condition["length"] - 1)
        return PredictionState(inputs, empty, torch.zeros_like(seeds, dtype=torch.bool))

    def advance(self, models: Models, state: PredictionState) -> PredictionState:
        """Compute all scores: the only step."""
        return PredictionState(state.inputs, models["model"](*state.inputs), torch.ones_like(state.done))

    def draft(self, state: PredictionState) -> Draft:
        """The scores; all are committed once they are computed."""
        committed = state.done[:, None].expand(state.scores.shape)
        return Draft(state.scores, committed, state.done, state.done.long())
