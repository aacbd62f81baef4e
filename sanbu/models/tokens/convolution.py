"""A causal convolutional network over tokens: gated, dilated convolutions (van den Oord and others, WaveNet, 2016).

y_t = W (a * sigmoid(b)),  [a, b] = sum_j W_j x_{t - j d}        kernel k, j = 0 .. k - 1, dilation d

Dilations 1, 2, 4, 8 repeat from layer to layer, so that the field of n layers has 1 + (k - 1) sum d tokens. Between
two convolutions stands a multilayer perceptron, as in a transformer. B batch, T time, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.mlp import MLP, squared_relu
from sanbu.layers.state import State
from sanbu.models.tokens.modern import rms_norm
from sanbu.models.tokens.recurrent import Stateful, StatefulConfig
from sanbu.space import Space


class Taps(nn.Module):
    """x_BTD, and x of the tokens d, 2d, ... before each: k tensors. Tokens of an earlier document count as zero."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.width, self.offsets = width, [j * dilation for j in range(kernel)]

    def forward(self, x_BTD: Tensor, starts_BT: Tensor | None, state: State | None) -> list[Tensor]:
        time, reach = x_BTD.shape[1], self.offsets[-1]
        before = x_BTD.new_zeros(len(x_BTD), reach, self.width) if state is None else state.tensors[0]
        whole = torch.cat((before, x_BTD), 1)
        found = [whole[:, reach - offset : reach - offset + time] for offset in self.offsets]
        if starts_BT is not None:
            document_BT = starts_BT.cumsum(1)
            for j, offset in enumerate(self.offsets[1:], 1):
                same = document_BT[:, offset:] == document_BT[:, : max(time - offset, 0)]
                met = nn.functional.pad(same, (min(offset, time), 0), value=True)
                found[j] = found[j] * met[..., None]
        if state is not None:
            state.tensors = (last(whole, reach, time if state.reads is None else state.reads),)
        return found

    def state(self, rows: int, like: Tensor) -> State:
        """Zeros in the place of the tokens before the first."""
        return State((like.new_zeros(rows, self.offsets[-1], self.width),))


def last(whole_BSD: Tensor, reach: int, reads: int | Tensor) -> Tensor:
    """The last `reach` entries of each row that were read, of `reach` earlier ones and the new ones."""
    if isinstance(reads, int):
        return whole_BSD[:, reads : reads + reach]
    places_BR = reads[:, None] + torch.arange(reach, device=whole_BSD.device)
    return whole_BSD[torch.arange(len(whole_BSD), device=whole_BSD.device)[:, None], places_BR]


class ShortConvolution(nn.Module):
    """y_t = sum_j w_j * x_{t-j}, a weight per channel and tap; it begins as y = x."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.taps = Taps(width, kernel, 1)
        self.kernel = nn.Parameter(torch.zeros(kernel, width))
        self.kernel.data[0] = 1.0

    def forward(self, x_BTD: Tensor, starts_BT: Tensor | None, state: State | None) -> Tensor:
        taps = self.taps(x_BTD, starts_BT, state)
        mixed = taps[0] * self.kernel[0]
        for weight, tap in zip(self.kernel[1:], taps[1:], strict=True):
            mixed = mixed + weight * tap
        return mixed

    def state(self, rows: int) -> State:
        """The empty state."""
        return self.taps.state(rows, self.kernel)


class GatedConvolution(nn.Module):
    """W (a * sigmoid(b)) of the taps."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.taps = Taps(width, kernel, dilation)
        self.both = nn.Linear(kernel * width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BTD: Tensor, starts_BT: Tensor | None, state: State | None) -> Tensor:
        value, gate = self.both(torch.cat(self.taps(x_BTD, starts_BT, state), 2)).chunk(2, 2)
        return self.out(value * gate.sigmoid())

    def state(self, rows: int) -> State:
        """The empty state."""
        return self.taps.state(rows, self.out.weight)


class MixerBlock(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); the mixer alone looks at other tokens."""

    def __init__(self, mixer: nn.Module, width: int, hidden: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.mlp = MLP(width, hidden, bias=False, activation=squared_relu)

    def forward(self, x_BTD: Tensor, starts_BT: Tensor | None, state: State | None) -> Tensor:
        x_BTD = x_BTD + self.mixer(rms_norm(x_BTD), starts_BT, state)
        return x_BTD + self.mlp(rms_norm(x_BTD))

    def state(self, rows: int) -> State:
        """The empty state of the mixer."""
        return self.mixer.state(rows)  # type: ignore[operator]


class CausalCNN(StatefulConfig):
    """Gated causal convolutions with dilations 1, 2, 4, ... that repeat."""

    kind: Literal["causal-cnn"] = "causal-cnn"
    layers: int = Field(4, ge=1)
    width: int = Field(128, ge=1, description="width; sets automatic learning rate and batch size")
    kernel: int = Field(3, ge=2, description="tokens that a convolution sees")
    dilations: tuple[int, ...] = Field((1, 2, 4, 8), min_length=1, description="distance of these tokens, by layer")

    def build(self, space: Space) -> nn.Module:
        return causal_cnn(self, space)


def causal_cnn(config: CausalCNN, space: Space) -> Stateful:
    """The network. Matrices start uniform with deviation 1/sqrt(width), the last one of each branch at zero."""
    dilations = [config.dilations[layer % len(config.dilations)] for layer in range(config.layers)]
    blocks: list[nn.Module] = [
        MixerBlock(GatedConvolution(config.width, config.kernel, dilation), config.width, 4 * config.width)
        for dilation in dilations
    ]
    return initialised(Stateful(space, config, blocks), config.width)


def initialised(model: Stateful, width: int) -> Stateful:
    """Matrices uniform with deviation 1/sqrt(width); the last one of each residual branch, and the head, at zero."""
    bound = (3 / width) ** 0.5
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            last_one = name.endswith((".out", ".down")) or name == "head"
            nn.init.zeros_(module.weight) if last_one else nn.init.uniform_(module.weight, -bound, bound)
    return model
