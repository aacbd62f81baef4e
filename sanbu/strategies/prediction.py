"""A prediction is a sample of one step: scores_BO at the last token of each input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sanbu.strategies.strategy import Batch, Draft, Models


@dataclass
class State:
    """tokens_BT and length_B in, scores_BO out."""

    tokens: Tensor
    length: Tensor
    scores: Tensor
    done: Tensor


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
