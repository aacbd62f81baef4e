"""A performer: the mel of a score, all frames at once, from its piano roll.

mix = log(roll exp(20 W - 5) + 1e-5);   h = blocks(roll A + mix B);   mel = mix + h C

Every note has a learned spectrum, and the mix is their sum, as sounds add. Spectra span many orders of magnitude, so
their logarithms are learned, 20 times as fast as other weights. The blocks, convolutions over frames as in
`convolutional-speech`, add what a sum does not have: attacks, fading, and how partials meet. `flow-performer` draws a
mel around this one by flow matching (Hawthorne and others, "Multi-instrument music synthesis with spectrogram
diffusion", 2022, denoise it from a score).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.codecs.music.note_tokens import decode
from sanbu.codecs.music.roll import WIDTH, frames_of, roll
from sanbu.layers.frame_convolutions import FrameConvolutions
from sanbu.layers.spectrogram import FLOOR, Mel
from sanbu.models.acoustic.acoustic import CENTRE, FRAMES, SPREAD, Control, Spoken, inside
from sanbu.models.acoustic.mel_flow import MelFlow, scaled
from sanbu.models.model import ModelConfig
from sanbu.space import Space

PACE = 20.0  # by which the logarithms of spectra are learned faster


class Performer(ModelConfig):
    """Piano roll to mel, all frames at once."""

    family: ClassVar[str] = "performer"
    kind: Literal["performer"] = "performer"
    width: int = Field(160, ge=1, description="channels")
    layers: int = Field(5, ge=1, description="blocks over frames")
    kernel: int = Field(9, ge=1, description="frames that a depthwise convolution sees; odd")
    inner: int = Field(3, ge=1, description="width inside a block, in multiples of the width")

    def check(self, space: Space) -> None:
        if not isinstance(space.mel, Mel) or space.shape != (WIDTH,):
            raise ValueError("model: this kind plays scores, but the data has none with sound; set data=performances")
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, allowed: odd numbers")

    def build(self, space: Space) -> nn.Module:
        return PerformerModel(self, space)

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        with torch.device("meta"):
            return torch.zeros(1, FRAMES, WIDTH), torch.full((1,), FRAMES)


class PerformerModel(nn.Module):
    """mel [B, mels, T] of a roll [B, T, WIDTH]."""

    def __init__(self, config: Performer, space: Space) -> None:
        super().__init__()
        self.mel: Mel = space.mel
        mels, width = space.mel.mels, config.width
        self.spectra = nn.Parameter(torch.zeros(WIDTH, mels))
        self.notes, self.mix = nn.Linear(WIDTH, width), nn.Linear(mels, width)
        self.blocks = FrameConvolutions(config.layers, width, config.kernel, config.inner * width, 0.0)
        self.out = nn.Linear(width, mels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, roll_BTN: Tensor, frames_B: Tensor) -> Tensor:
        """The mel [B, mels, T], of whose frames the first `frames` are of each row."""
        inside_BT = inside(frames_B, roll_BTN.shape[1])
        mix_BTM = (roll_BTN @ (PACE * self.spectra + CENTRE).exp() + FLOOR).log()
        h_BTD = self.notes(roll_BTN) + self.mix((mix_BTM - CENTRE) / SPREAD)
        return (mix_BTM + SPREAD * self.out(self.blocks(h_BTD, inside_BT))).transpose(1, 2)

    def play(self, tokens_BS: Tensor, control: Control, seeds_B: Tensor) -> Spoken:
        """Play scores given as tokens, of which negative ones fill up a row; neither control nor seeds change it.

        A row without a note has no frames.
        """
        roll_BTN, frames_B = rolls(tokens_BS, self.mel)
        if not roll_BTN.shape[1]:
            return played(roll_BTN.new_zeros(len(roll_BTN), self.mel.mels, 0), frames_B)
        return played(self(roll_BTN, frames_B), frames_B)


class FlowPerformer(ModelConfig):
    """A performer that predicts the mean mel, and a flow around it: a spectrogram in several refinements."""

    family: ClassVar[str] = "performer-flow"
    kind: Literal["flow-performer"] = "flow-performer"
    base: ModelConfig = Field(Performer(), description="model that predicts the mean mel: performer")
    width: int = Field(128, ge=1, description="channels of the flow")
    decoder: int = Field(5, ge=1, description="blocks of the flow")
    kernel: int = Field(7, ge=1, description="frames that a depthwise convolution sees; odd")
    inner: int = Field(3, ge=1, description="width inside a block, in multiples of the width")

    def check(self, space: Space) -> None:
        if not isinstance(self.base, Performer):
            raise ValueError("model.base: allowed: performer")
        self.base.check(space)
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, allowed: odd numbers")

    def build(self, space: Space) -> nn.Module:
        return FlowPerformerModel(self, space)

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        with torch.device("meta"):
            extra = torch.zeros(1, space.mel.mels, FRAMES), torch.zeros(1)
        return (*(self.base.example(space) or ()), *extra)


class FlowPerformerModel(MelFlow):
    """mel [B, mels, T] of a roll [B, T, WIDTH]."""

    def __init__(self, config: FlowPerformer, space: Space) -> None:
        super().__init__()
        self.base: Any = config.base.build(space)
        self.mel: Mel = space.mel
        self.add_flow(space.mel.mels, config.width, config.decoder, config.kernel, config.inner)

    def forward(self, roll_BTN: Tensor, frames_B: Tensor, noisy_BMT: Tensor, time_B: Tensor) -> tuple[Tensor, Tensor]:
        """The base's mel, and the velocity at noisy scaled mels; the flow teaches the base nothing."""
        mel = self.base(roll_BTN, frames_B)
        return mel, self.velocity(noisy_BMT, scaled(mel.detach()), time_B, frames_B)

    def play(self, tokens_BS: Tensor, control: Control, seeds_B: Tensor) -> Spoken:
        """The base plays; then the flow draws a mel around it."""
        made = self.base.play(tokens_BS, control, seeds_B)
        if not made.mel.shape[2]:
            return made
        return made._replace(mel=self.flow(made.mel, made.frames, control, seeds_B))


def played(mel_BMT: Tensor, frames_B: Tensor) -> Spoken:
    """What was played; all of it is one part, and it always ends."""
    return Spoken(mel_BMT, frames_B, frames_B[:, None], torch.ones_like(frames_B, dtype=torch.bool))


def rolls(tokens_BS: Tensor, mel: Mel) -> tuple[Tensor, Tensor]:
    """The rolls [B, T, WIDTH] of whole scores, zeros after the shorter ones, and their frames [B]."""
    rows = []
    for row in tokens_BS.cpu():
        score = decode(row[row >= 0].tolist())
        count = 0 if score is None else frames_of(score, mel)
        found = np.zeros((0, WIDTH), np.float32) if score is None else roll(score, mel, 0, count)
        rows.append(torch.from_numpy(found))
    frames = torch.tensor([len(row) for row in rows], device=tokens_BS.device)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(tokens_BS.device), frames
