"""A recogniser: convolutions and a small transformer over a mel, and the letters of every second frame.

y = log softmax(W transformer(blocks(conv_stride2(mel))))

The output at a frame is a letter or a blank; the CTC objective sums over all ways to write a text with blanks (Graves
and others, "Connectionist temporal classification", 2006).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.frame_convolutions import FrameConvolutions
from sanbu.layers.frame_transformer import FrameTransformer
from sanbu.models.acoustic.acoustic import CENTRE, FRAMES, SPREAD, AcousticConfig, inside
from sanbu.space import Space


class CtcConfig(AcousticConfig):
    """What recognisers of letters share: blocks over frames."""

    family: ClassVar[str] = "recogniser"
    width: int = Field(160, ge=4, description="channels")
    convolutions: int = Field(5, ge=1, description="convolutional blocks")
    kernel: int = Field(9, ge=1, description="frames that a depthwise convolution sees; odd")
    transformer: int = Field(2, ge=0, description="transformer blocks")
    heads: int = Field(4, ge=1, description="attention heads")
    dropout: float = Field(0.1, ge=0, lt=1)

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"model.width: given {self.width}, allowed: multiples of 2 x model.heads, {2 * self.heads}"
            )
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, allowed: odd numbers")

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        with torch.device("meta"):
            return torch.zeros(1, space.mel.mels, FRAMES), torch.full((1,), FRAMES)


class CtcRecogniser(CtcConfig):
    """Letters of speech: convolutions, then attention."""

    kind: Literal["ctc-recogniser"] = "ctc-recogniser"

    def build(self, space: Space) -> nn.Module:
        return CtcModel(BandsAtOnce(space.mel.mels, self.width), self, space)


class BandsAtOnce(nn.Module):
    """Every second frame [B, ceil(T / 2), D] of a scaled mel [B, mels, T], by one convolution over all bands."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(bands, width, 5, stride=2, padding=2), nn.LayerNorm(width)

    def forward(self, x_BMT: Tensor, real_BT: Tensor) -> Tensor:
        return self.norm(self.convolution(x_BMT).transpose(1, 2))


class CtcModel(nn.Module):
    """log p(letter or blank) [B, ceil(T / 2), V] of mel [B, mels, T] with `frames` [B]; id 0 is the blank.

    front: maps a scaled mel [B, mels, T], zero beyond a row, and the mask [B, T] of its real frames to every second
    frame [B, ceil(T / 2), D].
    """

    def __init__(self, front: nn.Module, config: CtcConfig, space: Space) -> None:
        super().__init__()
        width = config.width
        self.front = front
        self.convolutions = FrameConvolutions(config.convolutions, width, config.kernel, 3 * width, config.dropout)
        self.transformer = FrameTransformer(config.transformer, width, config.heads, 2 * width, (3, 1), config.dropout)
        self.out = nn.Linear(width, space.vocabulary)

    @staticmethod
    def steps(frames_B: Tensor) -> Tensor:
        """The outputs of so many frames."""
        return (frames_B + 1) // 2

    def forward(self, mel_BMT: Tensor, frames_B: Tensor) -> Tensor:
        real_BT = inside(frames_B, mel_BMT.shape[2])
        x_BTD = self.front(((mel_BMT - CENTRE) / SPREAD) * real_BT[:, None], real_BT)
        inside_BT = inside(self.steps(frames_B), x_BTD.shape[1])
        x_BTD = self.transformer(self.convolutions(x_BTD, inside_BT), inside_BT)
        return self.out(x_BTD).log_softmax(2)
