"""A recogniser whose first layers read the mel as a picture: a pattern may lie higher or lower in the bands.

y = log softmax(W transformer(blocks(W_0 front(mel))));   front: three times pool(relu(norm(conv2d(x))))

Voices differ in where the same vowel lies; one convolution over all bands (`ctc-recogniser`) has to learn it for each
place. Convolutions of 3 x 3 before the recogniser as in Amodei and others, "Deep Speech 2", 2016; each is followed by
the larger of two bands, the first by the larger of two frames too. Norms are over channels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.models.recognisers.ctc import CtcConfig, CtcModel
from sanbu.space import Space


class CtcPictures(CtcConfig):
    """Letters of speech: convolutions over bands and frames, then over frames, then attention."""

    kind: Literal["ctc-pictures"] = "ctc-pictures"
    width: int = Field(128, ge=4, description="channels of the blocks over frames")
    convolutions: int = Field(3, ge=1, description="convolutional blocks over frames")
    transformer: int = Field(1, ge=0, description="transformer blocks")
    dropout: float = Field(0.2, ge=0, lt=1)
    channels: int = Field(24, ge=1, description="channels of the first convolution over bands and frames")

    def check(self, space: Space) -> None:
        super().check(space)
        if space.mel.mels < 8:
            raise ValueError(f"data.mel.mels: given {space.mel.mels}, allowed for this model: 8 or more")

    def build(self, space: Space) -> nn.Module:
        front = BandsAsPlaces(space.mel.mels, self.channels, self.width, self.dropout)
        return CtcModel(front, self, space)


class BandsAsPlaces(nn.Module):
    """Every second frame [B, ceil(T / 2), D] of a scaled mel [B, mels, T], by convolutions over bands and frames."""

    def __init__(self, bands: int, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        sizes = (1, channels, 2 * channels, 2 * channels)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes[1:])
        self.narrow, self.norm = nn.Linear(sizes[-1] * (bands // 8), width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BMT: Tensor, real_BT: Tensor) -> Tensor:
        odd = x_BMT.shape[2] % 2
        x_BCMT, real_BT = F.pad(x_BMT, (0, odd))[:, None], F.pad(real_BT, (0, odd))
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x_BCMT = norm(layer(x_BCMT).transpose(1, 3)).transpose(1, 3)
            x_BCMT = F.relu(x_BCMT) * real_BT[:, None, None]
            x_BCMT = F.max_pool2d(x_BCMT, (2, 1 if number else 2))
            real_BT = real_BT if number else real_BT[:, ::2]
        return self.dropout(self.norm(self.narrow(x_BCMT.flatten(1, 2).transpose(1, 2))))
