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

from sanbu.models.acoustic.acoustic import FRAMES, AcousticConfig, Control, Prediction, Spoken
from sanbu.models.acoustic.fastspeech2 import ConvolutionalSpeech, PredictedConfig
from sanbu.models.acoustic.mel_flow import MelFlow, scaled
from sanbu.models.model import ModelConfig
from sanbu.space import Batch, Space


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


class FlowSpeechModel(MelFlow):
    """mel [B, mels, T] of ids [B, S]."""

    def __init__(self, config: FlowSpeech, space: Space) -> None:
        super().__init__()
        self.base: Any = config.base.build(space)
        self.mel = space.mel
        self.add_flow(space.mel.mels, config.width, config.decoder, config.kernel, config.inner)

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

    def say(self, ids_BS: Tensor, voice_B: Tensor, control: Control, seeds_B: Tensor) -> Spoken:
        """The base speaks; then the flow draws a mel around what it said."""
        spoken = self.base.say(ids_BS, voice_B, replace(control, energy=1.0), seeds_B)
        mel = self.flow(spoken.mel, spoken.frames, control, seeds_B)
        return spoken._replace(mel=mel + math.log(control.energy))

    def copy(self, batch: Batch) -> Tensor:
        """The mel [B, mels, T] of the flow without noise, around the copy of the base."""
        frames = batch["frames"]
        return self.flow(self.base.copy(batch), frames, Control(temperature=0.0), torch.zeros_like(frames))
