"""Flow matching for speech: a first model predicts the mean mel, and a flow samples around it in a few steps.

mu = base(symbols);   x_t = (1 - t) noise + t mel;   dx/dt = v(x_t, mu, t)

The base predicts durations, pitch, energy and, by an absolute distance, a smooth mel; the flow adds the detail that a
mean has lost. Matcha-TTS (Mehta and others, 2023) conditions on the mean of each symbol; here mu is the base's mel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.frame_convolutions import FrameConvolutions
from sanbu.models.acoustic.acoustic import CENTRE, FRAMES, SPREAD, AcousticConfig, Control, Prediction, Spoken, inside
from sanbu.models.acoustic.fastspeech2 import ConvolutionalSpeech, PredictedConfig
from sanbu.models.model import ModelConfig
from sanbu.noise import normal_in_order
from sanbu.space import Batch, Space

WAVES = 16  # frequencies of the embedding of a time


class Flowing(NamedTuple):
    """The base's prediction, and the velocity [B, mels, T] of scaled mels."""

    base: Prediction
    velocity: Tensor


class FlowSpeech(AcousticConfig):
    """A base that predicts the mean, and a flow around it."""

    family: ClassVar[str] = "speech-flow"
    kind: Literal["flow-speech"] = "flow-speech"
    base: ModelConfig = Field(
        ConvolutionalSpeech(), description="model that predicts the mean mel: fastspeech2 or convolutional-speech"
    )
    width: int = Field(128, ge=1, description="channels of the flow")
    decoder: int = Field(5, ge=1, description="blocks of the flow")
    kernel: int = Field(7, ge=1, description="frames that a depthwise convolution sees; odd")
    inner: int = Field(3, ge=1, description="width inside a block, in multiples of the width")

    def check(self, space: Space) -> None:
        super().check(space)
        if not isinstance(self.base, PredictedConfig):
            raise ValueError("model.base: allowed: fastspeech2, convolutional-speech")
        self.base.check(space)
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, allowed: odd numbers")

    def build(self, space: Space) -> nn.Module:
        return FlowSpeechModel(self, space)

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        with torch.device("meta"):
            extra = torch.zeros(1, space.mel.mels, FRAMES), torch.zeros(1)
        return (*(super().example(space) or ()), *extra)


class FlowSpeechModel(nn.Module):
    """mel [B, mels, T] of ids [B, S]."""

    def __init__(self, config: FlowSpeech, space: Space) -> None:
        super().__init__()
        self.base: Any = config.base.build(space)
        self.mel, mels, width = space.mel, space.mel.mels, config.width
        self.first = nn.Linear(2 * mels, width)
        self.time = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = FrameConvolutions(config.decoder, width, config.kernel, config.inner * width, 0.0)
        self.out = nn.Linear(width, mels)

    def forward(
        self,
        ids_BS: Tensor,
        voice_B: Tensor,
        durations_BS: Tensor,
        contour_BT: Tensor,
        energy_BS: Tensor,
        noisy_BMT: Tensor,
        time_B: Tensor,
    ) -> Flowing:
        """Teacher forcing of the base, and the velocity at noisy scaled mels; the flow teaches the base nothing."""
        made = self.base(ids_BS, voice_B, durations_BS, contour_BT, energy_BS)
        velocity = self.velocity(noisy_BMT, scaled(made.mel.detach()), time_B, durations_BS.sum(1))
        return Flowing(made, velocity)

    def velocity(self, noisy_BMT: Tensor, mean_BMT: Tensor, time_B: Tensor, frames_B: Tensor) -> Tensor:
        """v [B, mels, T] of scaled mels at a time from 0, noise, to 1."""
        inside_BT = inside(frames_B, noisy_BMT.shape[2])
        both_BTX = torch.cat((noisy_BMT, mean_BMT), 1).transpose(1, 2)
        x_BTD = self.first(both_BTX) + self.time(waves_of(time_B))[:, None]
        return self.out(self.blocks(x_BTD, inside_BT)).transpose(1, 2)

    def say(self, ids_BS: Tensor, voice_B: Tensor, control: Control, seeds_B: Tensor) -> Spoken:
        """The base speaks; then `control.steps` steps of Euler from noise of the row's seed."""
        spoken = self.base.say(ids_BS, voice_B, replace(control, energy=1.0), seeds_B)
        _, M, T = spoken.mel.shape
        noise = control.temperature * normal_in_order(seeds_B, T, M).transpose(1, 2)
        mel = self.flow(noise, spoken.mel, spoken.frames, control.steps)
        return spoken._replace(mel=mel + math.log(control.energy))

    def copy(self, batch: Batch) -> Tensor:
        """The mel [B, mels, T] of the flow from the middle of its noise, around the copy of the base."""
        mean = self.base.copy(batch)
        return self.flow(torch.zeros_like(mean), mean, batch["frames"], Control().steps)

    def flow(self, x_BMT: Tensor, mean_BMT: Tensor, frames_B: Tensor, steps: int) -> Tensor:
        """The mel that steps of Euler reach from a scaled beginning x."""
        mean = scaled(mean_BMT)
        for step in range(steps):
            time_B = torch.full((len(x_BMT),), step / steps, device=x_BMT.device)
            x_BMT = x_BMT + self.velocity(x_BMT, mean, time_B, frames_B) / steps
        return x_BMT * SPREAD + CENTRE


def scaled(mel: Tensor) -> Tensor:
    """A log-mel with mean near 0 and deviation near 1."""
    return (mel - CENTRE) / SPREAD


def waves_of(time_B: Tensor) -> Tensor:
    """Sines and cosines [B, 2 WAVES] of times."""
    frequencies = 2.0 ** torch.arange(WAVES, device=time_B.device).mul(0.5) * math.pi / 4
    angles = time_B[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1)
