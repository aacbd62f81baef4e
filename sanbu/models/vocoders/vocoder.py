"""The contract of a vocoder: log-mel [B, mels, F] in, wave [B, F hop] out, whole or while the mel is still growing.

    wave = model.draw(mel, seeds, first)         # first: the number of frames that came before, for the noise
    stream = model.stream(seeds)
    wave = stream.push(mel), stream.push(mel, last=True)    # pieces; joined they equal the whole to 1e-5

Models of the family `vocoder` are called with a mel and give the wave. Models of the family `wave-density` are called
with a wave and its mel and give -log p(wave | mel) of each row, in nats.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sanbu.layers.spectrogram import Mel
from sanbu.models.model import ModelConfig
from sanbu.space import Space


class Stream(Protocol):
    """Draws a wave while its mel grows."""

    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """The samples [B, n] that are final now; n may be 0 until enough frames are known. last: no frame follows."""


class DrawsWhole(Protocol):
    """Makes a wave of frames. mel: of the waves that it makes."""

    mel: Mel

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """Waves [B, F hop] of whole mels [B, mels, F], in [-1, 1]."""


class Draws(DrawsWhole, Protocol):
    """What every vocoder has besides its forward pass. mel: of the waves that it was trained on."""

    def stream(self, seeds: Tensor) -> Stream:
        """A stream for rows with these seeds."""


class VocoderConfig(ModelConfig):
    """Common to all vocoders: they need data with a mel."""

    def check(self, space: Space) -> None:
        if not isinstance(space.mel, Mel):
            raise ValueError("model: this kind makes waves of mels, but the data has none; set data=waves")

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        """A mel of one row, on the meta device; before it the wave, for a model that is called with one."""
        frames = max(1, space.shape[0] // space.mel.hop)
        mel = torch.zeros(1, space.mel.mels, frames, device="meta")
        wave = torch.zeros(1, space.mel.samples(frames), device="meta")
        return (wave, mel) if self.family == "wave-density" else (mel,)


class Windowed:
    """A stream of a vocoder that sees `left` and `right` frames around each: every piece is drawn with that context.

    Exact for any model whose output at a frame depends on no others; the context is computed again for each piece.
    """

    def __init__(self, model: DrawsWhole, seeds: Tensor, left: int, right: int) -> None:
        self.model, self.seeds, self.left, self.right = model, seeds, left, right
        self.known: Tensor | None = None  # frames that are still needed
        self.start = 0  # the number of the first of them
        self.drawn = 0  # frames whose samples were given out

    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """See `Stream`."""
        self.known = mel if self.known is None else torch.cat((self.known, mel), 2)
        end = self.start + self.known.shape[2]
        until = end if last else max(self.drawn, end - self.right)
        if until == self.drawn:
            return mel.new_zeros(len(mel), 0)
        hop = self.model.mel.hop
        wave = self.model.draw(self.known, self.seeds, self.start)
        fresh = slice((self.drawn - self.start) * hop, (until - self.start) * hop)
        piece = wave[:, fresh]
        self.drawn = until
        forget = max(0, until - self.left - self.start)
        self.known, self.start = self.known[:, :, forget:], self.start + forget
        return piece
