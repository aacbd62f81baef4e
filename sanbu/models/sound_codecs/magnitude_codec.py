"""Magnitude codec: the decoder says the magnitudes of each frame, and Griffin-Lim finds the phases.

Magnitudes are a regression, which a small model learns within minutes (see the magnitude head of the vocoders). The
codes and the magnitudes are causal; the phases of a frame depend on (iterations + 1) n_fft / hop frames on each side.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.griffin_lim import phases
from sanbu.layers.spectrogram import Mel, istft
from sanbu.models.sound_codecs.sound_codec import CodecConfig, Coded, SoundCodec
from sanbu.models.vocoders.istft_head import LOUDEST
from sanbu.models.vocoders.vocoder import Stream, Windowed
from sanbu.space import Space


class MagnitudeCodec(CodecConfig):
    """Codes to magnitudes, phases by Griffin-Lim: good within minutes of training."""

    kind: Literal["magnitude-codec"] = "magnitude-codec"
    iterations: int = Field(20, ge=1, description="iterations of Griffin-Lim; more are better and slower")

    def build(self, space: Space) -> nn.Module:
        return MagnitudeSound(self, space.mel)


class MagnitudeSound(SoundCodec):
    """A codec whose head gives log-magnitudes."""

    config: MagnitudeCodec

    def __init__(self, config: MagnitudeCodec, mel: Mel) -> None:
        super().__init__(config, mel, mel.n_fft // 2 + 1)
        self.phases = Phases(mel, config.iterations)

    def magnitudes(self, mel: Tensor) -> Tensor:
        """Magnitudes [B, n_fft / 2 + 1, F] of a mel, by way of its codes."""
        return self.coded(mel).made

    def coded(self, mel: Tensor, depths_B: Tensor | None = None) -> Coded:
        found = self.quantizer(self.latent(mel), depths_B)
        made = loudness(self.output(found.values).transpose(1, 2))
        return Coded(made[:, :, : mel.shape[2]], found)

    def wave(self, output_BFC: Tensor, seeds: Tensor, first: int) -> Tensor:
        return self.phases.draw(output_BFC.transpose(1, 2), seeds, first)

    def waves(self, seeds: Tensor) -> Stream:
        """Pieces drawn with the context that the phases of a frame see."""
        return Windowed(self.phases, seeds, self.phases.reach, self.phases.reach)


def loudness(logarithms: Tensor) -> Tensor:
    """Magnitudes of logarithms, at most LOUDEST."""
    return logarithms.exp().clamp(max=LOUDEST)


class Phases:
    """The wave of log-magnitudes; what a stream draws its pieces with."""

    def __init__(self, mel: Mel, iterations: int) -> None:
        self.mel, self.iterations = mel, iterations
        self.reach = (iterations + 1) * -(-mel.n_fft // mel.hop)

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """Waves [B, F hop] of log-magnitudes [B, C, F] in the place of a mel. No gradient reaches the phases."""
        target, settings = loudness(mel), self.mel
        with torch.no_grad():
            angles = phases(target, settings, seeds, first, self.iterations).angle()
        samples, spectrum = settings.samples(target.shape[2]), torch.polar(target, angles)
        return istft(spectrum, settings.n_fft, settings.hop, settings.window, settings.padding, samples)
