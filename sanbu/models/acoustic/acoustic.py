"""The contract of an acoustic model: symbols of a text and a voice in, log-mel out.

    spoken = model.say(ids_BS, voice_B, control, seeds)    # zeros of ids fill up a row; they are not spoken

Models of the family `durations` are called with the true durations, pitch and energy of each symbol (teacher forcing)
and give a `Prediction`; models of the family `attention` find the times of the symbols themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sanbu.layers.pitch import MIDDLE
from sanbu.layers.spectrogram import Mel, mel_bands
from sanbu.models.model import ModelConfig
from sanbu.space import Batch, Space

CENTRE, SPREAD = -5.0, 2.0  # of log-mels of speech, so that a network's outputs are near 0 and 1
LOUDNESS = 4.0  # by which log energies are divided
SYMBOLS, FRAMES = 40, 200  # of an example, to count its cost


@dataclass(frozen=True)
class Control:
    """How to speak: factors of the rate of speaking, of the pitch and of the loudness (amplitude).

    steps, temperature: of a flow; how many steps, and the deviation of the noise that it begins with.
    """

    rate: float = 1.0
    pitch: float = 1.0
    energy: float = 1.0
    steps: int = 8
    temperature: float = 0.7


class Spoken(NamedTuple):
    """mel [B, mels, T], of which `frames` [B] are spoken; durations [B, S] in frames.

    finished [B]: False where a model had to be stopped before it ended by itself.
    """

    mel: Tensor
    frames: Tensor
    durations: Tensor
    finished: Tensor


class Prediction(NamedTuple):
    """mel [B, mels, T], and of each symbol [B, S]: log(1 + frames), pitch in octaves from `MIDDLE`, energy.

    means [B, S, mels]: what the frames of a symbol sound like on average, by which symbols and frames are aligned.
    """

    mel: Tensor
    log_durations: Tensor
    pitch: Tensor
    energy: Tensor
    means: Tensor


class Speaks(Protocol):
    """What every acoustic model has besides its forward pass."""

    mel: Mel

    def say(self, ids_BS: Tensor, voice_B: Tensor, control: Control, seeds_B: Tensor) -> Spoken:
        """Speak. Rows without a symbol get no frames."""

    def copy(self, batch: Batch) -> Tensor:
        """The mel [B, mels, T] that this model makes of utterances with their own times (teacher forcing)."""


class AcousticConfig(ModelConfig):
    """Common to acoustic models: they need data with symbols and a mel."""

    def check(self, space: Space) -> None:
        if not isinstance(space.mel, Mel) or space.vocabulary < 2 or space.grammar is not None:
            raise ValueError("model: this kind speaks texts, but the data has no text with sound; set data=speech")

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        """Symbols of one row with their durations, the pitch of each frame and energies; on the meta device."""
        with torch.device("meta"):
            ids = torch.zeros(1, SYMBOLS, dtype=torch.long)
            durations = torch.full((1, SYMBOLS), FRAMES // SYMBOLS)
            return ids, torch.zeros(1, dtype=torch.long), durations, torch.zeros(1, FRAMES), torch.zeros(1, SYMBOLS)


def energy_of(mel_BMT: Tensor) -> Tensor:
    """The log of the norm of the mel magnitudes of each frame [B, T], scaled."""
    return (2 * mel_BMT).logsumexp(1) / (2 * LOUDNESS)


def harmonics(contour_BT: Tensor, mel: Mel) -> Tensor:
    """The comb of a pitch in the mel bands [B, T, mels]: 1 where a band lies on a harmonic, -1 between two.

    cos(2 pi f / f_0) exp(-4 (b / f_0)^2) for a band at f Hz of half width b, which no longer sees single harmonics once
    it is wide. contour: octaves from `MIDDLE`.
    """
    centres, widths = (torch.from_numpy(each).to(contour_BT) for each in mel_bands(mel))
    inverse_BT1 = (2.0**-contour_BT / MIDDLE)[..., None]
    resolved = torch.exp(-4 * (widths * inverse_BT1).square())
    return resolved * torch.cos(2 * math.pi * centres * inverse_BT1)


def contour_of(pitch_BS: Tensor, durations_BS: Tensor) -> Tensor:
    """The pitch of frames [B, T]: a symbol's at its middle, linear in between. Symbols without frames are left out."""
    frames = int(durations_BS.sum(1).max())
    times = np.arange(frames) + 0.5
    rows = []
    for pitch_S, durations_S in zip(pitch_BS.detach().cpu().numpy(), durations_BS.cpu().numpy(), strict=True):
        middles, heard = np.cumsum(durations_S) - durations_S / 2, durations_S > 0
        line = np.interp(times, middles[heard], pitch_S[heard]) if heard.any() else np.zeros(frames)
        rows.append(line)
    return torch.from_numpy(np.stack(rows)).to(pitch_BS)


def mean_of_symbols(values_BT: Tensor, durations_BS: Tensor) -> Tensor:
    """The mean of frames over each symbol [B, S]; 0 for a symbol without a frame."""
    total_BT = torch.nn.functional.pad(values_BT.double().cumsum(1), (1, 0))
    ends_BS = durations_BS.cumsum(1)
    sums_BS = total_BT.gather(1, ends_BS) - total_BT.gather(1, ends_BS - durations_BS)
    return (sums_BS / durations_BS.clamp(min=1)).float()


def inside(lengths_B: Tensor, longest: int) -> Tensor:
    """Which places of filled-up rows are real, bool [B, longest]."""
    return torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]
