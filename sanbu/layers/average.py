"""A function that follows another: the exponential moving average of its weights.

average <- decay * average + (1 - decay) * model, after each round (Polyak and Juditsky, 1992; warmed up as 1 - 1/(t + 1),
so that the first rounds are a plain mean). Used for the weights one samples from and for an objective's slow target.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """A frozen copy of `source` that `follow` moves toward it. Calls go to the copy."""

    rounds: Tensor

    def __init__(self, source: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self._source = (source,)  # a tuple, so that the source is not registered as a part of its own average
        self.decay = decay
        self.module = copy.deepcopy(source).requires_grad_(False)
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)

    @torch.no_grad()
    def follow(self) -> None:
        """Move one round toward the source; buffers are copied."""
        self.rounds += 1
        weight = 1.0 - min(self.decay, float(1 - 1 / (self.rounds + 1)))
        ours, theirs = list(self.module.parameters()), list(self._source[0].parameters())
        if ours:
            torch._foreach_lerp_([*ours], [*theirs], weight)
        for mine, other in zip(self.module.buffers(), self._source[0].buffers(), strict=True):
            mine.copy_(other)
