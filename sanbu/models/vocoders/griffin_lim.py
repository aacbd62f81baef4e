"""Griffin-Lim as a vocoder without weights: what a mel gives where no vocoder is there."""

from __future__ import annotations

from torch import Tensor

from sanbu.layers.griffin_lim import griffin_lim
from sanbu.layers.spectrogram import Mel
from sanbu.models.vocoders.vocoder import Stream, Windowed

ITERATIONS = 30


class GriffinLim:
    """The contract of a vocoder (`sanbu.models.vocoders.vocoder.Draws`)."""

    def __init__(self, mel: Mel, iterations: int = ITERATIONS) -> None:
        self.mel, self.iterations = mel, iterations

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """Waves [B, F hop] of mels [B, mels, F]."""
        return griffin_lim(mel, self.mel, seeds, self.iterations, first)

    def stream(self, seeds: Tensor) -> Stream:
        """Pieces drawn with the context that a frame sees, which grows with the iterations."""
        reach = (self.iterations + 1) * -(-self.mel.n_fft // self.mel.hop)
        return Windowed(self, seeds, reach, reach)
