"""WaveGlow: a wave and Gaussian noise are the same thing through an invertible function of the mel.

The wave is cut into groups of samples, the channels. Each flow mixes them by an invertible matrix W and then changes
one half by an affine function whose scale and shift are read from the other half and the mel:

a, b = halves of W x;   b' = exp(log s(a, mel)) b + t(a, mel)
log p(x) = log N(z; 0, sigma^2) + sum log s + (groups) log |det W|, over all flows

Some channels leave after every few flows (Prenger, Valle and Catanzaro, 2018; Kingma and Dhariwal, "Glow", 2018).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sanbu.layers.spectrogram import Mel
from sanbu.models.vocoders.vocoder import Stream, VocoderConfig, Windowed
from sanbu.models.vocoders.wavenet import gated
from sanbu.noise import uniform_at
from sanbu.space import Space


class WaveGlow(VocoderConfig):
    """Invertible flows between waves and noise: exact likelihood, and all samples at once."""

    family: ClassVar[str] = "wave-density"
    kind: Literal["waveglow"] = "waveglow"
    flows: int = Field(8, ge=1, description="flows")
    group: int = Field(8, ge=2, description="samples that are mixed, the channels; even")
    early_every: int = Field(4, ge=1, description="flows between channels that leave")
    early_size: int = Field(2, ge=0, description="channels that leave each time; even")
    layers: int = Field(6, ge=1, description="dilated layers per flow")
    width: int = Field(64, ge=1, description="channels of those layers")
    kernel: int = Field(3, ge=1, description="their kernel; odd")
    sigma: float = Field(1.0, gt=0, description="standard deviation of the noise in training")
    draw_sigma: float = Field(0.6, ge=0, description="standard deviation of the noise in drawing")

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.group % 2 or self.early_size % 2 or not self.kernel % 2:
            raise ValueError("group and early_size must be even, kernel odd")
        if self.channels(self.flows - 1) < 2:
            raise ValueError(f"early_size: given {self.early_size}; no channels are left for the last flow")
        return self

    def check(self, space: Space) -> None:
        super().check(space)
        if space.mel.hop % self.group or (space.mel.n_fft - space.mel.hop) % 2:
            raise ValueError(f"model.group: given {self.group}, must divide the hop of the data's mel, {space.mel.hop}")

    def channels(self, flow: int) -> int:
        """The channels that are left at a flow."""
        return self.group - self.early_size * (flow // self.early_every)

    def build(self, space: Space) -> nn.Module:
        return WaveGlowVocoder(self, space.mel)


class Mixing(nn.Module):
    """An invertible matrix over channels, at first a random rotation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels))
        self.weight = nn.Parameter(rotation * torch.linalg.det(rotation).sign())

    def forward(self, x_BCN: Tensor) -> tuple[Tensor, Tensor]:
        """W x, and log |det W|."""
        return self.weight @ x_BCN, torch.linalg.slogdet(self.weight)[1]


def back(weight: Any, x_BCN: Tensor) -> Tensor:
    """W^-1 x."""
    return torch.linalg.solve(weight, x_BCN)


class Coupling(nn.Module):
    """log s and t of one half of the channels, from the other half and the mel. At first both are 0."""

    def __init__(self, config: WaveGlow, half: int, condition: int) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.start = nn.Conv1d(half, width, 1)
        self.condition = nn.Conv1d(condition, 2 * width * config.layers, 1)
        self.inputs, self.outputs = nn.ModuleList(), nn.ModuleList()
        for layer in range(config.layers):
            dilation = 2**layer
            reach = dilation * (kernel - 1) // 2
            self.inputs.append(nn.Conv1d(width, 2 * width, kernel, dilation=dilation, padding=reach))
            self.outputs.append(nn.Conv1d(width, 2 * width, 1))
        self.end = nn.Conv1d(width, 2 * half, 1)
        for parameter in self.end.parameters():
            nn.init.zeros_(parameter)

    def forward(self, a_BCN: Tensor, mel_BMN: Tensor) -> tuple[Tensor, Tensor]:
        """log s and t, each of the shape of the half."""
        h, total = self.start(a_BCN), torch.zeros(1, device=a_BCN.device)
        features = self.condition(mel_BMN).chunk(len(self.inputs), 1)
        for read, write, feature in zip(self.inputs, self.outputs, features, strict=True):
            residual, skip = write(gated(read(h) + feature)).chunk(2, 1)
            h, total = h + residual, total + skip
        shift, log_scale = self.end(total).chunk(2, 1)
        return log_scale, shift


class WaveGlowVocoder(nn.Module):
    """-log p(wave | mel) of each row; draws all samples at once."""

    def __init__(self, config: WaveGlow, mel: Mel) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        cut = (mel.n_fft - mel.hop) // 2
        self.upsample = nn.ConvTranspose1d(mel.mels, mel.mels, mel.n_fft, mel.hop, padding=cut)
        sizes = [config.channels(flow) for flow in range(config.flows)]
        self.mixings = nn.ModuleList(Mixing(size) for size in sizes)
        condition = mel.mels * config.group
        self.couplings = nn.ModuleList(Coupling(config, size // 2, condition) for size in sizes)

    def forward(self, wave: Tensor, mel: Tensor) -> Tensor:
        """-log p(wave [B, F hop] | mel [B, mels, F]) in nats by row: a density."""
        z_BN, log_determinant = self.encode(wave, mel)
        sigma = self.config.sigma
        constant = math.log(sigma) + math.log(2 * math.pi) / 2
        gaussian = (z_BN / sigma).square() / 2 + constant
        return gaussian.sum(1) - log_determinant

    def encode(self, wave: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """The noise [B, N] of a wave, and the logarithm of the determinant of its Jacobian, by row."""
        condition, x = self.conditions(mel), self.grouped(wave)
        left, total = [], wave.new_zeros(len(wave))
        for flow, (mixing, coupling) in enumerate(zip(self.mixings, self.couplings, strict=True)):
            leaving = x.shape[1] - self.config.channels(flow)
            if leaving:
                left.append(x[:, :leaving])
                x = x[:, leaving:]
            x, log_determinant = mixing(x)
            a, b = x.chunk(2, 1)
            log_scale, shift = coupling(a, condition)
            x = torch.cat((a, log_scale.exp() * b + shift), 1)
            total = total + log_scale.sum((1, 2))
            total = total + x.shape[2] * log_determinant
        return self.ungrouped(torch.cat((*left, x), 1)), total

    def decode(self, noise_BN: Tensor, mel: Tensor) -> Tensor:
        """The wave of some noise: the inverse of `encode`."""
        condition, z = self.conditions(mel), self.grouped(noise_BN)
        group = self.config.group
        x = z[:, group - self.config.channels(self.config.flows - 1) :]
        for flow in reversed(range(self.config.flows)):
            a, b = x.chunk(2, 1)
            log_scale, shift = self.couplings[flow](a, condition)
            b = (b - shift) * (-log_scale).exp()
            before = torch.cat((a, b), 1)
            x = back(self.mixings[flow].weight, before)
            leaving = self.config.channels(flow - 1) - x.shape[1] if flow else 0
            if leaving:
                start = group - x.shape[1] - leaving
                x = torch.cat((z[:, start : start + leaving], x), 1)
        return self.ungrouped(x)

    def conditions(self, mel: Tensor) -> Tensor:
        """The mel at the rate of samples, in groups: [B, mels * group, N / group]."""
        whole = self.upsample(mel)
        return whole.unflatten(2, (-1, self.config.group)).transpose(2, 3).flatten(1, 2)

    def grouped(self, wave: Tensor) -> Tensor:
        """[B, group, N / group]."""
        return wave.unflatten(1, (-1, self.config.group)).transpose(1, 2)

    def ungrouped(self, x_BCN: Tensor) -> Tensor:
        """The inverse of `grouped`."""
        return x_BCN.transpose(1, 2).flatten(1)

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """The wave of the noise of these seeds, at the samples from frame `first` on."""
        count = self.mel.samples(mel.shape[2])
        noise = normal_samples(seeds, first * self.mel.hop, count).to(mel.dtype)
        return self.decode(noise * self.config.draw_sigma, mel).clamp(-1, 1)

    def stream(self, seeds: Tensor) -> Stream:
        """Pieces drawn with the context that a frame sees."""
        config = self.config
        groups = config.flows * (2**config.layers - 1) * (config.kernel - 1) // 2
        overlap = -(-self.mel.n_fft // self.mel.hop)
        reach = -(-groups * config.group // self.mel.hop) + overlap
        return Windowed(self, seeds, reach, reach)


def normal_samples(seeds_B: Tensor, start: int, count: int) -> Tensor:
    """Standard normals [B, count] of samples start .. start + count - 1, the same wherever a piece begins."""
    counter = 2 * torch.arange(start, start + count, device=seeds_B.device)
    first, second = (uniform_at(seeds_B[:, None], counter + k) for k in (0, 1))
    radius = (-2 * first.log()).sqrt()
    return (radius * torch.cos(2 * math.pi * second)).float()
