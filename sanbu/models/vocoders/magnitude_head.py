"""Magnitude head: ConvNeXt blocks correct the magnitudes that a mel leaves open, and Griffin-Lim finds the phases.

A = settle(A_0(mel) exp(W body(mel)));   wave = iSTFT(phases of A after a few iterations of Griffin-Lim)

A_0 are the magnitudes nearest to the mel; settle is one more step of that search, so that A keeps the given mel.
Magnitudes are a regression, which a small model learns within minutes; phases, which take a head or critics long to
learn, follow from the overlap of frames. Compare Wang and others, "Tacotron", 2017, whose network ended in such
magnitudes, and Masuyama and others, "Deep Griffin-Lim iteration", 2019.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.griffin_lim import linear_magnitudes, phases, settled
from sanbu.layers.spectrogram import Mel, istft
from sanbu.models.vocoders.istft_head import LOUDEST, Body, IstftHead, begin_small
from sanbu.models.vocoders.vocoder import Stream, VocoderConfig, Windowed
from sanbu.space import Space

QUIET = 1e-2  # magnitude from which a correction begins where the mel says less


class MagnitudeHead(VocoderConfig):
    """Learned magnitudes, phases by Griffin-Lim: good within minutes of training."""

    family: ClassVar[str] = "vocoder"
    kind: Literal["magnitude-head"] = "magnitude-head"
    width: int = Field(192, ge=1, description="channels")
    layers: int = Field(4, ge=1, description="ConvNeXt blocks")
    inner: int = Field(3, ge=1, description="width inside a block, in multiples of the width")
    kernel: int = Field(7, ge=1, description="frames that a depthwise convolution sees; odd")
    solves: int = Field(8, ge=0, description="steps of the search for the magnitudes nearest to the mel")
    iterations: int = Field(20, ge=1, description="iterations of Griffin-Lim; more are better and slower")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, allowed: odd numbers")

    def build(self, space: Space) -> nn.Module:
        return MagnitudeVocoder(self, space.mel)

    def body(self) -> IstftHead:
        """The blocks, as an iSTFT head has them."""
        return IstftHead(width=self.width, layers=self.layers, inner=self.inner, kernel=self.kernel)


class MagnitudeVocoder(nn.Module):
    """wave [B, F hop] of mel [B, mels, F]."""

    def __init__(self, config: MagnitudeHead, mel: Mel) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        self.body = Body(config.body(), mel.mels)
        self.head = nn.Linear(config.width, mel.n_fft // 2 + 1)
        self.apply(begin_small)

    def magnitudes(self, mel: Tensor) -> Tensor:
        """Magnitudes [B, n_fft / 2 + 1, F]."""
        nearest = linear_magnitudes(mel, self.mel, self.config.solves).clamp(min=QUIET)
        correction = self.head(self.body(mel)).float().transpose(1, 2)
        return settled((nearest * correction.exp()).clamp(max=LOUDEST), mel, self.mel)

    def forward(self, mel: Tensor) -> Tensor:
        return self.draw(mel, torch.zeros(len(mel), dtype=torch.long, device=mel.device))

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """The wave; the first phases are random. Gradients reach the magnitudes, not the phases."""
        target, settings = self.magnitudes(mel), self.mel
        with torch.no_grad():
            angles = phases(target, settings, seeds, first, self.config.iterations).angle()
        samples = settings.samples(mel.shape[2])
        spectrum = torch.polar(target, angles)
        return istft(spectrum, settings.n_fft, settings.hop, settings.window, settings.padding, samples)

    def stream(self, seeds: Tensor) -> Stream:
        """Pieces drawn with the context that a frame sees, which grows with the iterations."""
        overlap = -(-self.mel.n_fft // self.mel.hop)
        reach = self.body.reach() + (self.config.iterations + 1) * overlap
        return Windowed(self, seeds, reach, reach)
