"""FastSpeech 2: all frames at once from symbols whose duration, pitch and energy are predicted first.

h = encoder(symbols) + voice;   d, p, e = predictors(h);   mel = decoder(expand(h + W_e e, d) + W_p comb(p))

(Ren and others, "FastSpeech 2", 2021.) Pitch and energy are predicted per symbol (Łańcucki, "FastPitch", 2021). The
pitch of frames lies on lines between the middles of symbols, and enters as the comb of its harmonics in the mel bands,
where the paper looks up a bin: a small decoder need not learn where harmonics lie, and unheard pitches still act.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.alignment import expand, search_durations, whole_durations
from sanbu.layers.frame_convolutions import FrameConvolutions
from sanbu.layers.frame_transformer import FrameTransformer
from sanbu.layers.spectrogram import Mel
from sanbu.models.acoustic.acoustic import (
    CENTRE,
    SPREAD,
    AcousticConfig,
    Control,
    Prediction,
    Spoken,
    contour_of,
    energy_of,
    harmonics,
    inside,
    mean_of_symbols,
)
from sanbu.space import Batch, Space

PRIOR = 200.0  # by which an alignment far from the diagonal is less likely, in nats


class PredictedConfig(AcousticConfig):
    """Common to models that predict durations, pitch and energy first."""

    family: ClassVar[str] = "durations"
    width: int = Field(128, ge=2, description="channels; even")
    predictor: int = Field(128, ge=1, description="channels of the predictors of duration, pitch and energy")
    dropout: float = Field(0.1, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        return PredictedModel(self, space)

    def stacks(self) -> tuple[nn.Module, nn.Module]:
        """The encoder, over symbols, and the decoder, over frames: [B, T, D] -> [B, T, D] with a mask [B, T]."""
        raise NotImplementedError


class FastSpeech2(PredictedConfig):
    """Symbols to mel, all frames at once: transformer blocks as published."""

    kind: Literal["fastspeech2"] = "fastspeech2"
    encoder: int = Field(4, ge=1, description="blocks over symbols")
    decoder: int = Field(6, ge=1, description="blocks over frames")
    heads: int = Field(2, ge=1, description="attention heads")
    inner: int = Field(1024, ge=1, description="width inside a block")
    kernels: tuple[int, int] = Field((9, 1), description="of the two convolutions of a block; odd")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"model.width: given {self.width}, allowed: multiples of 2 x model.heads, {2 * self.heads}"
            )
        if not all(kernel % 2 for kernel in self.kernels):
            raise ValueError(f"model.kernels: given {self.kernels}, allowed: odd numbers")

    def stacks(self) -> tuple[nn.Module, nn.Module]:
        shape = (self.width, self.heads, self.inner, self.kernels, self.dropout)
        return FrameTransformer(self.encoder, *shape), FrameTransformer(self.decoder, *shape)


class ConvolutionalSpeech(PredictedConfig):
    """FastSpeech 2 with ConvNeXt blocks, which cost a third and see a bounded number of frames."""

    kind: Literal["convolutional-speech"] = "convolutional-speech"
    encoder: int = Field(4, ge=1, description="blocks over symbols")
    decoder: int = Field(5, ge=1, description="blocks over frames")
    kernel: int = Field(9, ge=1, description="symbols or frames that a depthwise convolution sees; odd")
    inner: int = Field(3, ge=1, description="width inside a block, in multiples of the width")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, allowed: odd numbers")

    def stacks(self) -> tuple[nn.Module, nn.Module]:
        shape = (self.width, self.kernel, self.inner * self.width, self.dropout)
        return FrameConvolutions(self.encoder, *shape), FrameConvolutions(self.decoder, *shape)


class Predictor(nn.Module):
    """One number per symbol [B, S] of hidden states [B, S, D]: two convolutions with norms."""

    def __init__(self, width: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(w, channels, 3, padding=1) for w in (width, channels))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(channels, 1)

    def forward(self, h_BSD: Tensor, inside_BS: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h_BSD = F.relu(convolution((h_BSD * inside_BS[..., None]).transpose(1, 2))).transpose(1, 2)
            h_BSD = self.dropout(norm(h_BSD))
        return self.out(h_BSD)[..., 0] * inside_BS


class PredictedModel(nn.Module):
    """mel [B, mels, T] of ids [B, S]."""

    def __init__(self, config: PredictedConfig, space: Space) -> None:
        super().__init__()
        self.mel: Mel = space.mel
        width = config.width
        self.symbols = nn.Embedding(space.vocabulary, width)
        self.voices = nn.Embedding(max(1, space.classes), width)
        self.encoder, self.decoder = config.stacks()
        predictor = lambda: Predictor(width, config.predictor, config.dropout)  # noqa: E731
        self.durations, self.pitch, self.energy = predictor(), predictor(), predictor()
        mels = space.mel.mels
        self.pitch_in, self.energy_in = nn.Linear(mels + 1, width), nn.Linear(1, width)
        self.out, self.means = nn.Linear(width, mels), nn.Linear(width, mels)
        nn.init.normal_(self.symbols.weight, std=width**-0.5)
        nn.init.normal_(self.voices.weight, std=width**-0.5)

    def hear(self, ids_BS: Tensor, voice_B: Tensor) -> Tensor:
        """Hidden states of the symbols, [B, S, D]."""
        inside_BS = ids_BS > 0
        h_BSD = self.encoder(self.symbols(ids_BS) * math.sqrt(self.symbols.embedding_dim), inside_BS)
        return (h_BSD + self.voices(voice_B)[:, None]) * inside_BS[..., None]

    def forward(
        self, ids_BS: Tensor, voice_B: Tensor, durations_BS: Tensor, contour_BT: Tensor, energy_BS: Tensor
    ) -> Prediction:
        """Teacher forcing: the mel of given durations, pitch of frames and energy, and the predictions of the three."""
        h_BSD, inside_BS = self.hear(ids_BS, voice_B), ids_BS > 0
        predicted = (each(h_BSD, inside_BS) for each in (self.durations, self.pitch, self.energy))
        log_durations, pitch, energy = predicted
        mel = self.decode(h_BSD, durations_BS, contour_BT, energy_BS)
        return Prediction(mel, log_durations, pitch, energy, self.means_of(h_BSD))

    def means_of(self, h_BSD: Tensor) -> Tensor:
        """The mean mel of the frames of each symbol [B, S, mels]."""
        return self.means(h_BSD) * SPREAD + CENTRE

    def align(self, ids_BS: Tensor, voice_B: Tensor, mel_BMT: Tensor, frames_B: Tensor) -> Tensor:
        """Durations [B, S] of the best monotonic alignment of frames with the means of symbols."""
        means_BSM = self.means_of(self.hear(ids_BS, voice_B))
        return search_durations(near_the_diagonal(means_BSM, mel_BMT, ids_BS, frames_B), (ids_BS > 0).sum(1), frames_B)

    def decode(self, h_BSD: Tensor, durations_BS: Tensor, contour_BT: Tensor, energy_BS: Tensor) -> Tensor:
        """The mel [B, mels, T] for a pitch of T frames, at least the largest sum of durations."""
        x_BTD = expand(h_BSD + self.energy_in(energy_BS[..., None]), durations_BS, contour_BT.shape[1])
        comb_BTX = torch.cat((harmonics(contour_BT, self.mel), contour_BT[..., None]), 2)
        x_BTD = x_BTD + self.pitch_in(comb_BTX)
        y_BTD = self.decoder(x_BTD, inside(durations_BS.sum(1), x_BTD.shape[1]))
        return self.out(y_BTD).transpose(1, 2) * SPREAD + CENTRE

    def copy(self, batch: Batch) -> Tensor:
        """The mel [B, mels, T] with the durations, pitch and energy of the utterances; durations by its own aligner
        where the batch has none.
        """
        ids, voice, true = batch["ids"], batch["voice"], batch["mel"]
        given = batch.get("durations")
        durations = self.align(ids, voice, true, batch["frames"]) if given is None else given
        energy = mean_of_symbols(energy_of(true), durations)
        return self.decode(self.hear(ids, voice), durations, batch["pitch"], energy)

    def say(self, ids_BS: Tensor, voice_B: Tensor, control: Control, seeds_B: Tensor) -> Spoken:
        """Speak with predicted durations, pitch and energy; the seeds change nothing.

        The loudness is changed in the finished mel, which holds logarithms of amplitudes.
        """
        h_BSD, inside_BS = self.hear(ids_BS, voice_B), ids_BS > 0
        log_durations, pitch, energy = (each(h_BSD, inside_BS) for each in (self.durations, self.pitch, self.energy))
        durations_BS = whole_durations(log_durations.expm1() * inside_BS, control.rate)
        durations_BS[:, 0] += (durations_BS.sum(1) == 0) & inside_BS[:, 0]  # a text has at least one frame
        contour_BT = contour_of(pitch, durations_BS) + math.log2(control.pitch)
        mel = self.decode(h_BSD, durations_BS, contour_BT, energy * inside_BS) + math.log(control.energy)
        frames_B = durations_BS.sum(1)
        return Spoken(mel, frames_B, durations_BS, torch.ones_like(frames_B, dtype=torch.bool))


def near_the_diagonal(means_BSM: Tensor, mel_BMT: Tensor, ids_BS: Tensor, frames_B: Tensor) -> Tensor:
    """Scores [B, S, T]: log densities of frames around the means of symbols, and a prior for an even rate of speaking.

    -1/2 sum_m ((mel_m - mean_m) / SPREAD)^2 - PRIOR (s / S - t / T)^2
    """
    squares_BST = means_BSM.square().sum(2)[..., None] + mel_BMT.square().sum(1)[:, None]
    gap_BST = squares_BST - 2 * means_BSM @ mel_BMT
    symbols_B = (ids_BS > 0).sum(1)
    place_BS = torch.arange(ids_BS.shape[1], device=ids_BS.device) / symbols_B[:, None]
    time_BT = torch.arange(mel_BMT.shape[2], device=ids_BS.device) / frames_B[:, None]
    apart_BST = (place_BS[..., None] - time_BT[:, None]).square()
    return -gap_BST / (2 * SPREAD**2) - PRIOR * apart_BST
