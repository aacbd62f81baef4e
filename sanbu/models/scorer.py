"""A decoder that scores: its trunk, and a linear head at the tokens one asks about (Radford and others, 2018; Ziegler and others, 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanbu.models.transformer import Decoder


class Scorer(nn.Module):
    """tokens_NT -> scores. The head starts at zero, so that the first score of everything is 0."""

    def __init__(self, trunk: Decoder, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.score_head = nn.Linear(width, outputs)
        nn.init.zeros_(self.score_head.weight)
        nn.init.zeros_(self.score_head.bias)

    def forward(self, tokens_NT: Tensor, place_N: Tensor | None = None) -> Tensor:
        """scores_NO at one token of each row, or scores_NTO at all of them."""
        hidden_NTD = self.hidden(tokens_NT)
        if place_N is None:
            return self.score_head(hidden_NTD)
        rows = torch.arange(len(place_N), device=place_N.device)
        return self.score_head(hidden_NTD[rows, place_N])

    def hidden(self, tokens_NT: Tensor) -> Tensor:
        """The trunk's last states, [N, T, D]."""
        return self.trunk(tokens_NT, readout=lambda head, hidden: hidden)
