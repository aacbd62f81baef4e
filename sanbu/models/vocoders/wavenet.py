"""WaveNet: p(x_t | x_<t, mel), sample by sample, by dilated causal convolutions (van den Oord and others, 2016).

h <- tanh(W_f * h + V_f c) sigmoid(W_g * h + V_g c),   h_{l+1} = h_l + R h,   outputs = U relu(W relu(sum_l S_l h))

* is a causal convolution over two samples, `dilation` apart; c are the features of the sample's frame, which sees one
frame on each side. While drawing, each layer keeps its last `dilation` inputs in a ring buffer, so a sample costs two
matrix products per layer, whatever came before (Le Paine and others, "Fast Wavenet", 2016).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.spectrogram import Mel
from sanbu.layers.wave_distributions import Distribution, Logistics, MuLaw
from sanbu.models.vocoders.vocoder import Stream, VocoderConfig
from sanbu.space import Space


class WaveNet(VocoderConfig):
    """Dilated causal convolutions over samples: exact likelihood, slow to draw."""

    family: ClassVar[str] = "wave-density"
    kind: Literal["wavenet"] = "wavenet"
    width: int = Field(64, ge=1, description="channels of the residual path")
    skip: int = Field(64, ge=1, description="channels of the skip path")
    layers: int = Field(16, ge=1, description="layers; the dilation doubles with each and begins anew every cycle")
    cycle: int = Field(8, ge=1, description="layers until the dilation is 1 again")
    outputs: Literal["mu-law", "logistics"] = Field("mu-law", description="distribution of a sample")
    components: int = Field(10, ge=1, description="(logistics) components of the mixture")

    def build(self, space: Space) -> nn.Module:
        return WaveNetVocoder(self, space.mel)

    def dilations(self) -> list[int]:
        """The dilation of each layer."""
        return [2 ** (layer % self.cycle) for layer in range(self.layers)]

    def distribution(self) -> Distribution:
        """The law of a sample."""
        return MuLaw() if self.outputs == "mu-law" else Logistics(self.components)


class GatedLayer(nn.Module):
    """One layer: weights of the two samples that it sees, and of what it gives to the residual and the skip path."""

    def __init__(self, config: WaveNet, dilation: int) -> None:
        super().__init__()
        self.dilation, self.width = dilation, config.width
        self.convolution = nn.Conv1d(config.width, 2 * config.width, 2, dilation=dilation)
        self.out = nn.Conv1d(config.width, config.width + config.skip, 1)

    def forward(self, h_BWN: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """All samples: the residual path and the skip path. condition: [B, 2 W, N]."""
        gates = self.convolution(F.pad(h_BWN, (self.dilation, 0))) + condition
        found = self.out(gated(gates))
        return h_BWN + found[:, : self.width], found[:, self.width :]


def step(layer: Any, h_BW: Tensor, past_BW: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """One sample through a layer, given its input `dilation` samples ago. condition: [B, 2 W]."""
    weight = layer.convolution.weight
    gates = F.linear(past_BW, weight[:, :, 0], layer.convolution.bias) + condition
    gates = gates + F.linear(h_BW, weight[:, :, 1])
    found = F.linear(gated(gates), layer.out.weight[:, :, 0], layer.out.bias)
    return h_BW + found[:, : layer.width], found[:, layer.width :]


def gated(gates: Tensor) -> Tensor:
    """tanh of the first half of the channels (axis 1) times the sigmoid of the second."""
    signal, gate = gates.chunk(2, 1)
    return signal.tanh() * gate.sigmoid()


class WaveNetVocoder(nn.Module):
    """-log p(wave | mel) of each row; draws sample by sample."""

    def __init__(self, config: WaveNet, mel: Mel) -> None:
        super().__init__()
        self.config, self.mel, self.law = config, mel, config.distribution()
        self.embed = nn.Embedding(256, config.width) if config.outputs == "mu-law" else nn.Linear(1, config.width)
        self.condition = nn.Conv1d(mel.mels, config.width, 3)
        self.condition_layers = nn.Conv1d(config.width, 2 * config.width * config.layers, 1, bias=False)
        self.layers = nn.ModuleList(GatedLayer(config, dilation) for dilation in config.dilations())
        self.last = nn.Conv1d(config.skip, config.skip, 1)
        self.outputs = nn.Conv1d(config.skip, self.law.size, 1)

    def forward(self, wave: Tensor, mel: Tensor) -> Tensor:
        """-log p(wave [B, F hop] | mel [B, mels, F]) in nats by row, of the levels nearest to the wave."""
        level = self.law.nearest(wave)
        outputs = self.predict(level, mel)
        return -self.law.log_probability(outputs.transpose(1, 2), level).sum(1)

    def predict(self, level_BN: Tensor, mel: Tensor) -> Tensor:
        """Outputs [B, P, N] of every sample, given those before it; before the first lies silence."""
        silence = self.law.nearest(torch.zeros(len(level_BN), 1, device=level_BN.device))
        h_BWN = self.enter(torch.cat((silence, level_BN[:, :-1]), 1)).transpose(1, 2)
        frames = self.conditions(F.pad(mel, (1, 1)))
        total: Tensor | float = 0.0
        for layer, features in zip(self.layers, frames, strict=True):
            h_BWN, skip = layer(h_BWN, features.repeat_interleave(self.mel.hop, 2))
            total = total + skip
        return self.outputs(F.relu(self.last(F.relu(torch.as_tensor(total)))))

    def enter(self, level: Tensor) -> Tensor:
        """The features [..., W] of samples."""
        if self.config.outputs == "mu-law":
            return self.embed(level)
        return self.embed(self.law.value(level)[..., None].to(self.last.weight.dtype))

    def conditions(self, mel: Tensor) -> tuple[Tensor, ...]:
        """What each layer gets of each frame, [B, 2 W, F - 2] by layer; the first and last frame are context."""
        return self.condition_layers(F.relu(self.condition(mel))).chunk(self.config.layers, 1)

    def finish(self, skip_BS: Tensor) -> Tensor:
        """Outputs [B, P] of one sample."""
        h = F.linear(F.relu(skip_BS), self.last.weight[:, :, 0], self.last.bias)
        return F.linear(F.relu(h), self.outputs.weight[:, :, 0], self.outputs.bias)

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """The wave, from the start. first: must be 0, because a sample depends on all before it; use `stream`."""
        if first:
            raise ValueError(f"first: given {first}, but WaveNet cannot begin in the middle; use stream")
        return self.stream(seeds).push(mel, last=True)

    def stream(self, seeds: Tensor) -> Stream:
        """Draws with ring buffers; waits for one frame more than it draws."""
        return RingBuffers(self, seeds)


class RingBuffers:
    """The state of a draw: each layer's last inputs, the last sample, and the frames that are not yet complete."""

    def __init__(self, model: WaveNetVocoder, seeds: Tensor) -> None:
        self.model, self.seeds, rows = model, seeds, len(seeds)
        weight = model.last.weight
        config = model.config
        self.rings = [weight.new_zeros(dilation, rows, config.width) for dilation in config.dilations()]
        self.level = model.law.nearest(weight.new_zeros(rows))
        self.frames = weight.new_zeros(rows, model.mel.mels, 1)
        self.position = 0

    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """See `Stream`."""
        self.frames = torch.cat((self.frames, mel), 2)
        if last:
            self.frames = F.pad(self.frames, (0, 1))
        if self.frames.shape[2] < 3:
            return mel.new_zeros(len(mel), 0)
        frames = self.model.conditions(self.frames)
        self.frames = self.frames[:, :, -2:]
        hop, pieces = self.model.mel.hop, []
        for frame in range(frames[0].shape[2]):
            features = [each[:, :, frame] for each in frames]
            pieces += [self.sample(features) for _ in range(hop)]
        return torch.stack(pieces, 1)

    def sample(self, features: list[Tensor]) -> Tensor:
        """Draw one sample of each row."""
        h_BW = self.model.enter(self.level)
        total = h_BW.new_zeros(len(h_BW), self.model.config.skip)
        for layer, ring, condition in zip(self.model.layers, self.rings, features, strict=True):
            place = self.position % len(ring)
            past = ring[place].clone()
            ring[place] = h_BW
            h_BW, skip = step(layer, h_BW, past, condition)
            total = total + skip
        self.level = self.model.law.draw(self.model.finish(total), self.seeds, self.position)
        self.position += 1
        return self.model.law.value(self.level)
