"""The log-mel of a wave that is still growing, frame by frame.

A frame is final once the last sample of its window is known, (n_fft - hop) / 2 samples after its hop in the convention
`hifigan`. Joined, the pieces equal the mel of the whole wave; only the two ends see reflected samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.layers.spectrogram import Mel, log_mel, log_mel_unpadded


class MelStream:
    """Kept: the samples that windows of later frames still reach."""

    def __init__(self, mel: Mel, rows: int) -> None:
        self.mel = mel
        self.known = torch.zeros(rows, 0)
        self.begun = False  # the start has been extended by reflection

    def push(self, wave_BN: Tensor, last: bool = False) -> Tensor:
        """The frames [B, mels, n] that are final now. last: no sample follows."""
        mel = self.mel
        self.known = torch.cat((self.known.to(wave_BN.device), wave_BN), 1)
        if not self.begun:
            if last:
                return log_mel(self.known, mel)
            if self.known.shape[1] < mel.least + mel.n_fft:  # enough for a first frame and for a reflected end
                return self.none(wave_BN)
            mirrored = self.known[:, 1 : mel.padding + 1].flip(1)
            self.known = torch.cat((mirrored, self.known), 1)
            self.begun = True
        if last:
            self.known = F.pad(self.known[:, None], (0, mel.padding), mode="reflect")[:, 0]
            return self.taken(self.count(self.known.shape[1]))
        spare = (self.known.shape[1] - mel.padding - 1) // mel.hop  # what may be reflected at the end is kept
        return self.taken(min(spare, self.count(self.known.shape[1])))

    def count(self, samples: int) -> int:
        """Whole frames in so many samples."""
        return max(0, (samples - self.mel.n_fft) // self.mel.hop + 1)

    def taken(self, count: int) -> Tensor:
        """The next frames."""
        if not count:
            return self.none(self.known)
        hop, n_fft = self.mel.hop, self.mel.n_fft
        frames = log_mel_unpadded(self.known[:, : (count - 1) * hop + n_fft], self.mel)
        self.known = self.known[:, count * hop :]
        return frames

    def none(self, like: Tensor) -> Tensor:
        """No frames."""
        return like.new_zeros(len(like), self.mel.mels, 0)
