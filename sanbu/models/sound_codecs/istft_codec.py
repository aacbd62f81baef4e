"""iSTFT codec: the decoder says magnitude and phase of each frame, and one inverse STFT gives the wave.

Causal but for the overlap of the transform, which delays the wave by (n_fft - hop) / 2 samples, so it suits streams.
Phases take critics and hours to learn (objective.of=wave-game). Compare Ji and others, "WavTokenizer", 2024, whose
codes a ConvNeXt decoder with an iSTFT head turns into sound too.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sanbu.layers.spectrogram import Mel, istft
from sanbu.models.sound_codecs.sound_codec import CodecConfig, Coded, SoundCodec
from sanbu.models.vocoders.istft_head import SpectrumStream, as_spectrum
from sanbu.models.vocoders.vocoder import Stream
from sanbu.space import Space


class IstftCodec(CodecConfig):
    """Codes to magnitudes and phases: the fastest decoder, with a short delay."""

    kind: Literal["istft-codec"] = "istft-codec"

    def build(self, space: Space) -> nn.Module:
        return IstftSound(self, space.mel)


class IstftSound(SoundCodec):
    """A codec whose head gives log-magnitudes and phases."""

    def __init__(self, config: IstftCodec, mel: Mel) -> None:
        super().__init__(config, mel, mel.n_fft + 2)

    def coded(self, mel: Tensor, depths_B: Tensor | None = None) -> Coded:
        found = self.quantizer(self.latent(mel), depths_B)
        made = self.wave(self.output(found.values), torch.zeros(0), 0)
        return Coded(made[:, : self.mel.samples(mel.shape[2])], found)

    def wave(self, output_BFC: Tensor, seeds: Tensor, first: int) -> Tensor:
        """Nothing is random."""
        mel, samples = self.mel, self.mel.samples(output_BFC.shape[1])
        return istft(as_spectrum(output_BFC.transpose(1, 2)), mel.n_fft, mel.hop, mel.window, mel.padding, samples)

    def waves(self, seeds: Tensor) -> Stream:
        return Spectra(self, len(seeds))


class Spectra:
    """A stream of outputs of the head."""

    def __init__(self, model: IstftSound, rows: int) -> None:
        self.overlap = SpectrumStream(model.mel, model.head.weight.new_zeros(rows, 0))

    def push(self, output_BCF: Tensor, last: bool = False) -> Tensor:
        """See `Stream`."""
        return self.overlap.push(as_spectrum(output_BCF), last)
