"""minGRU: a recurrence whose gates do not depend on the state, so that all times are computed at once.

z = sigmoid(W_z x),  n = W_n x,  h_t = (1 - z_t) h_{t-1} + z_t n_t       (Feng and others, 2024)

h is composed from pairs (a, b) of h -> a h + b, in log2 T passes over the row (Hillis and Steele, 1986). A short causal
convolution stands before it, a gate and a matrix behind it. B batch, T time, D width, H hidden width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.state import State, state_at
from sanbu.models.tokens.convolution import MixerBlock, ShortConvolution, initialised
from sanbu.models.tokens.recurrent import Stateful, StatefulConfig
from sanbu.space import Space


def scan(a_BTH: Tensor, b_BTH: Tensor) -> Tensor:
    """h_BTH with h_t = a_t h_{t-1} + b_t from h = 0, in log2 T passes."""
    step = 1
    while step < a_BTH.shape[1]:
        b_BTH = b_BTH + a_BTH * F.pad(b_BTH, (0, 0, step, 0))[:, :-step]
        a_BTH = a_BTH * F.pad(a_BTH, (0, 0, step, 0), value=1.0)[:, :-step]
        step *= 2
    return b_BTH


class GatedScan(nn.Module):
    """W_o (silu(W_g x) * h), with h the recurrence over a short convolution of x."""

    def __init__(self, width: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.convolution = ShortConvolution(width, kernel)
        self.update = nn.Linear(width, hidden)
        self.new = nn.Linear(width, hidden, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTD: Tensor, starts_BT: Tensor | None, state: State | None) -> Tensor:
        before = None if state is None else State(state.tensors[:1], state.reads)
        mixed = self.convolution(x_BTD, starts_BT, before)
        update, new = self.update(mixed).sigmoid(), self.new(mixed)
        decay = 1 - update if starts_BT is None else (1 - update) * ~starts_BT[..., None]
        drive = update * new
        if state is not None and before is not None:
            earlier = state.tensors[1]
            first = drive[:, :1] + decay[:, :1] * earlier[:, None]
            drive = torch.cat((first, drive[:, 1:]), 1)
            hidden = scan(decay, drive)
            state.tensors = (*before.tensors, state_at(hidden, earlier, state.reads))
        else:
            hidden = scan(decay, drive)
        return self.out(F.silu(self.gate(x_BTD)) * hidden)

    def state(self, rows: int) -> State:
        """The last inputs of the convolution, and h."""
        inputs = self.convolution.state(rows).tensors
        return State((*inputs, inputs[0].new_zeros(rows, self.new.out_features)))


class MinGRU(StatefulConfig):
    """A gated linear recurrence, computed in parallel over time (Feng and others, 2024)."""

    kind: Literal["mingru"] = "mingru"
    layers: int = Field(4, ge=1)
    width: int = Field(128, ge=1, description="width; sets automatic learning rate and batch size")
    expansion: float = Field(1.5, gt=0, description="width of the state, as a multiple of the width")
    kernel: int = Field(4, ge=1, description="tokens that the convolution before the recurrence sees; 1 disables")

    def build(self, space: Space) -> nn.Module:
        return mingru(self, space)


def mingru(config: MinGRU, space: Space) -> Stateful:
    """The network; biases of the update gate start so that the memories of a layer last 1 to 64 tokens."""
    hidden = int(config.expansion * config.width)
    blocks: list[nn.Module] = [
        MixerBlock(GatedScan(config.width, hidden, config.kernel), config.width, 4 * config.width)
        for _ in range(config.layers)
    ]
    model = initialised(Stateful(space, config, blocks), config.width)
    for module in model.modules():
        if isinstance(module, GatedScan):
            nn.init.uniform_(module.update.bias, -4.0, 0.0)
    return model
