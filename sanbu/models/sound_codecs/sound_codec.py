"""The contract of a sound codec, and its body: frames of a mel -> codes -> features from which a wave is made.

    codes_BKF = model.encode(mel)          # int64, rows, codebooks, frames of codes
    wave_BN = model.decode(codes_BKF)      # N: samples per frame of codes, times their number
    encoding = model.encoding(rows); encoding.push(mel), encoding.push(mel, last=True)
    decoding = model.decoding(seeds); decoding.push(codes), decoding.push(codes, last=True)

z_j = W body(mel frames  s j .. s j + s - 1, and earlier ones);   codes = quantize(z);   h = body(W' codes)

Encoder and decoder are causal ConvNeXt blocks over frames, as an iSTFT head has them (Siuzdak, "Vocos", 2023); s frames
of the mel are one frame of codes. Several codebooks per frame: Zeghidour and others, "SoundStream", 2021. As a vocoder
(family `vocoder`) a codec makes a wave of a mel by way of its codes. Shapes: M mels, W width, F frames.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import SanbuError
from sanbu.layers.quantizers.quantizer import Quantized, QuantizerConfig
from sanbu.layers.quantizers.rvq import Rvq
from sanbu.layers.spectrogram import SILENCE, Mel
from sanbu.models.vocoders.istft_head import Body, IstftHead, begin_small
from sanbu.models.vocoders.vocoder import Stream, VocoderConfig

MIDDLE, SPREAD = -5.5, 2.1  # mean and deviation of the log-mels of speech
QUIET = -2.5  # mean of the log-magnitudes of speech, where a new decoder begins; from 0 it learns to ignore the codes


class CodecConfig(VocoderConfig):
    """Common to all sound codecs."""

    family: ClassVar[str] = "vocoder"
    measure: ClassVar[str] = "sound-codecs"
    quantizer: QuantizerConfig = Field(Rvq(), description="how features become codes")
    stride: int = Field(2, ge=1, description="frames of the mel per frame of codes")
    width: int = Field(128, ge=1, description="channels")
    encoder: int = Field(4, ge=1, description="ConvNeXt blocks before the codes")
    decoder: int = Field(4, ge=1, description="ConvNeXt blocks after the codes")
    inner: int = Field(3, ge=1, description="width inside a block, in multiples of the width")
    kernel: int = Field(7, ge=1, description="frames that a depthwise convolution sees")

    def blocks(self, layers: int) -> IstftHead:
        """Causal blocks, as an iSTFT head has them."""
        return IstftHead(width=self.width, layers=layers, inner=self.inner, kernel=self.kernel, causal=True)

    def frame_rate(self, mel: Mel) -> float:
        """Frames of codes per second."""
        return mel.rate / (mel.hop * self.stride)

    def bit_rate(self, mel: Mel) -> float:
        """Bits per second: frames per second times the bits of a frame."""
        return self.frame_rate(mel) * self.quantizer.bits


@dataclass(frozen=True)
class Coded:
    """What the decoder makes of a mel (a wave [B, N], or magnitudes [B, C, F]), and what the quantizer said."""

    made: Tensor
    quantized: Quantized


class SoundCodec(nn.Module):
    """Encoder, quantizer and the features of the decoder; a subclass makes the wave of the features."""

    def __init__(self, config: CodecConfig, mel: Mel, outputs: int) -> None:
        super().__init__()
        self.config, self.mel, self.stride = config, mel, config.stride
        self.quantizer = config.quantizer.build()
        self.encoder = Body(config.blocks(config.encoder), mel.mels * config.stride)
        self.to_codes = nn.Linear(config.width, self.quantizer.dimensions)
        self.from_codes = nn.Linear(self.quantizer.dimensions, config.width * config.stride)
        self.decoder = Body(config.blocks(config.decoder), config.width)
        self.head = nn.Linear(config.width, outputs)
        self.apply(begin_small)
        nn.init.constant_(self.head.bias[: mel.n_fft // 2 + 1], QUIET)
        nn.init.normal_(self.to_codes.weight, std=config.width**-0.5)  # numbers of about 1, which spread over levels

    # -- whole sounds -------------------------------------------------------------------------------------------------

    def encode(self, mel: Tensor) -> Tensor:
        """Codes [B, K, ceil(F / stride)] of mels [B, M, F]. Raises SanbuError for anything else."""
        return self.quantizer(self.latent(checked(mel, self.mel))).codes

    def decode(self, codes_BKF: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Waves of codes. seeds [B]: where phases begin at random. Raises SanbuError for codes out of range."""
        seeds = torch.zeros(len(codes_BKF), dtype=torch.long, device=codes_BKF.device) if seeds is None else seeds
        return self.wave(self.output(self.quantizer.vectors(codes_BKF)), seeds, 0)

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """The waves [B, F hop] that mels [B, M, F] become by way of their codes."""
        wave = self.wave(self.output(self.quantizer(self.latent(mel)).values), seeds, first)
        return wave[:, : self.mel.samples(mel.shape[2])]

    def bypass(self, mel: Tensor, seeds: Tensor) -> Tensor:
        """The same without quantization: what better codes could reach at most."""
        wave = self.wave(self.output(self.quantizer.unquantized(self.latent(mel))), seeds, 0)
        return wave[:, : self.mel.samples(mel.shape[2])]

    def forward(self, mel: Tensor) -> Tensor:
        return self.draw(mel, torch.zeros(len(mel), dtype=torch.long, device=mel.device))

    # -- parts --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def coded(self, mel: Tensor, depths_B: Tensor | None = None) -> Coded:
        """For training. depths: how many codebooks each row uses."""

    @abstractmethod
    def wave(self, output_BFC: Tensor, seeds: Tensor, first: int) -> Tensor:
        """Waves [B, F hop] of outputs of the head; the random phases are those from frame `first` on."""

    @abstractmethod
    def waves(self, seeds: Tensor) -> Stream:
        """A stream of outputs [B, C, F] of the head that gives the wave."""

    def latent(self, mel: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """What is quantized [B, frames of codes, D]; a mel that ends within a frame of codes is filled with silence."""
        short = -mel.shape[2] % self.stride
        mel = F.pad(mel, (0, short), value=SILENCE) if short else mel
        groups = ((mel - MIDDLE) / SPREAD).unflatten(2, (-1, self.stride))
        together = groups.transpose(2, 3).flatten(1, 2)
        return self.to_codes(self.encoder(together, memory))

    def output(self, values_BFD: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """What the head says of each frame of the mel [B, F, C]."""
        frames_BFW = self.from_codes(values_BFD).unflatten(2, (self.stride, -1)).flatten(1, 2)
        return self.head(self.decoder(frames_BFW.transpose(1, 2), memory)).float()

    # -- streams ------------------------------------------------------------------------------------------------------

    def stream(self, seeds: Tensor) -> Stream:
        """Mel to wave, piece by piece, by way of the codes."""
        return CodedStream(self, seeds)

    def encoding(self, rows: int) -> Encoding:
        """Mel to codes, piece by piece."""
        return Encoding(self, rows)

    def decoding(self, seeds: Tensor) -> Decoding:
        """Codes to wave, piece by piece."""
        return Decoding(self, seeds)


def checked(mel: Tensor, settings: Mel) -> Tensor:
    """The mel, if it is one of the codec's shape. Raises SanbuError in one line."""
    if mel.ndim != 3 or mel.shape[1] != settings.mels or not mel.shape[2]:
        raise SanbuError(f"mel: given the shape {list(mel.shape)}, allowed: rows, {settings.mels} mels, frames")
    return mel


class Encoding:
    """Each frame is computed once. Kept: the last frames of every layer, and frames that no code stands for yet."""

    def __init__(self, model: SoundCodec, rows: int) -> None:
        self.model = model
        self.memory = model.encoder.memory(rows)
        self.waiting = model.head.weight.new_zeros(rows, model.mel.mels, 0)

    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """The codes [B, K, n] that are known now. last: no frame follows."""
        model, frames = self.model, torch.cat((self.waiting, mel), 2)
        ready = frames.shape[2] if last else frames.shape[2] // model.stride * model.stride
        self.waiting = frames[:, :, ready:]
        if not ready:
            return torch.zeros(len(mel), model.quantizer.codebooks, 0, dtype=torch.long, device=mel.device)
        return model.quantizer(model.latent(frames[:, :, :ready], self.memory)).codes


class Decoding:
    """Each frame is computed once; the last frames of every layer are kept."""

    def __init__(self, model: SoundCodec, seeds: Tensor) -> None:
        self.model, self.memory = model, model.decoder.memory(len(seeds))
        self.waves = model.waves(seeds)

    def push(self, codes_BKF: Tensor, last: bool = False) -> Tensor:
        """The samples [B, n] that are final now. last: no code follows."""
        model = self.model
        if codes_BKF.shape[2]:
            output_BFC = model.output(model.quantizer.vectors(codes_BKF), self.memory)
        else:
            output_BFC = model.head.weight.new_zeros(len(codes_BKF), 0, model.head.out_features)
        return self.waves.push(output_BFC.transpose(1, 2), last)


class CodedStream:
    """Encoding and decoding in one; gives as many samples as the mel stands for."""

    def __init__(self, model: SoundCodec, seeds: Tensor) -> None:
        self.encoding, self.decoding = model.encoding(len(seeds)), model.decoding(seeds)
        self.mel = model.mel
        self.owed = 0  # samples that the frames so far stand for, not yet given out

    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """See `Stream`."""
        self.owed += self.mel.samples(mel.shape[2])
        wave = self.decoding.push(self.encoding.push(mel, last), last)[:, : self.owed]
        self.owed -= wave.shape[1]
        return wave
