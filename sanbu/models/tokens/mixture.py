"""n-grams mixed with a network: p = g p_ngram + (1 - g) p_network, with a gate g that both sides inform.

g = sigmoid(w . hidden + v . [log g_k(h) for every order k] + b): hidden is the last state of the network, g_k(h) what
the n-grams of order k leave to shorter ones, so that the gate knows how much they know. The n-grams come from a run
(parents.model) and stay fixed. In training one occurrence of each n-gram is left out of its counts: else the counts
would know every row by heart and the network would learn nothing. B batch, T time, V vocabulary, K order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.state import Kept
from sanbu.models.model import AdaptedConfig, ModelConfig, Weights
from sanbu.models.tokens.ngram import KneserNey, NGram
from sanbu.models.tokens.recurrent import LSTM
from sanbu.models.tokens.transformer import Readout, logits
from sanbu.space import Space


class Mixture(AdaptedConfig):
    """A network and the n-grams of the run parents.model, mixed by a gate."""

    kind: Literal["ngram-mixture"] = "ngram-mixture"
    family: ClassVar[str] = "tokens"
    parents: ClassVar[tuple[str, ...]] = ("model",)
    order: int = Field(7, ge=1, description="order of the n-grams in parents.model")
    network: ModelConfig = LSTM(layers=2, width=208)

    def inside(self) -> ModelConfig:
        return self.network

    def build(self, space: Space) -> nn.Module:
        counted = NGram(order=self.order).build(space)
        return Mixed(counted, self.network.build(space), self.dial(), self.order)

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        """The n-grams of the parent; the network and the gate begin at random."""
        return own | {f"ngram.{name}": tensor for name, tensor in found.items()}


class Mixed(nn.Module):
    """log p of the mixture. ngram has no parameters, so a search changes the network and the gate alone."""

    def __init__(self, ngram: nn.Module, network: nn.Module, width: int, order: int) -> None:
        super().__init__()
        self.ngram: Any = ngram
        self.network: Any = network
        self.gate_hidden, self.gate_order = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(order))
        self.gate_bias = nn.Parameter(torch.zeros(1))
        self.head = nn.Identity()

    @property
    def context(self) -> int:
        """The longest sequence of the network."""
        return int(self.network.context)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[Kept] | None = None,
        readout: Readout = logits,
    ) -> Tensor:
        """log p_BTV, or whatever `readout(identity, log p)` makes; positions and cache as in `Decoder`."""
        found: Any = self.network(tokens_BT, positions_BT, None if cache is None else cache[1:], readout=both)
        scores_BTV, hidden_BTD = found
        counted: KneserNey = self.ngram
        windows_MR, known_M = counted.read(tokens_BT, positions_BT, None if cache is None else cache[0])
        with torch.no_grad():
            out_M = following(tokens_BT).flatten() if self.training and cache is None else None
            p_MV, left_KM = counted.laws(windows_MR, known_M, out_M), counted.left(windows_MR, known_M)
        p_BTV, left_BTK = p_MV.float().view_as(scores_BTV), left_KM.T.view(*tokens_BT.shape, -1)
        by_hidden, by_order = hidden_BTD.float() @ self.gate_hidden, left_BTK @ self.gate_order
        gate_BT1 = (by_hidden + by_order + self.gate_bias)[..., None]
        if out_M is not None:  # the token after the last is not known here, so its n-gram cannot be left out
            closed = torch.full_like(gate_BT1[:, -1:], -30.0)
            gate_BT1 = torch.cat((gate_BT1[:, :-1], closed), 1)
        own_BTV = F.logsigmoid(-gate_BT1) + scores_BTV.float().log_softmax(-1)
        return readout(self.head, torch.logaddexp(F.logsigmoid(gate_BT1) + p_BTV.clamp(min=1e-30).log(), own_BTV))

    def cache(self, rows: int, slots: int) -> list[Kept]:
        """The state of the n-grams, then that of the network."""
        return [*self.ngram.cache(rows, slots), *self.network.cache(rows, slots)]


def both(head: nn.Module, hidden_BTD: Tensor) -> Any:
    """A readout: logits and hidden states."""
    return head(hidden_BTD), hidden_BTD


def following(tokens_BT: Tensor) -> Tensor:
    """The token after each; -1 after the last of a row."""
    return F.pad(tokens_BT[:, 1:], (0, 1), value=-1)
