"""The delay pattern: K streams of codes as one sequence in which codebook k comes k steps late.

step t holds, for codebook k, the code of frame t - k;   `empty` where there is no such frame

So a code is drawn when the first codes of its frame are known, though all codes of a step are drawn at once (Copet and
others, "Simple and controllable music generation", 2023). F frames are F + K steps: at the step F the first codebook is
empty, which says that the sound has ended. Shapes: B rows, K codebooks, F frames, T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frame_of_step(steps_T: Tensor, codebooks: int) -> Tensor:
    """The number of the frame that each codebook has at each step, [K, T]; negative before the first."""
    return steps_T - torch.arange(codebooks, device=steps_T.device)[:, None]


def delayed(codes_BKF: Tensor, frames_B: Tensor, empty: int) -> Tensor:
    """Codes [B, K, F] of rows of so many frames as a sequence [B, K, F + K]."""
    _, codebooks, longest = codes_BKF.shape
    steps_T = torch.arange(longest + codebooks, device=codes_BKF.device)
    frame_KT = frame_of_step(steps_T, codebooks)
    places = frame_KT.clamp(0, max(0, longest - 1)).expand(len(codes_BKF), -1, -1)
    held = codes_BKF.gather(2, places) if longest else torch.full_like(places, empty)
    return torch.where(inside(frame_KT, frames_B), held, empty)


def undelayed(sequence_BKT: Tensor) -> Tensor:
    """The inverse: codes [B, K, T - K]; empty beyond the frames of a row."""
    codebooks = sequence_BKT.shape[1]
    frames = sequence_BKT.shape[2] - codebooks
    return torch.stack([sequence_BKT[:, k, k : k + frames] for k in range(codebooks)], 1)


def inside(frame_KT: Tensor, frames_B: Tensor) -> Tensor:
    """Which codebooks have a frame of the row at which steps, bool [B, K, T]."""
    return (frame_KT >= 0) & (frame_KT < frames_B[:, None, None])


def taught(sequence_BKT: Tensor, frames_B: Tensor) -> Tensor:
    """Where a model learns, bool [B, K, T]: all codes, and the end, which the first codebook says."""
    _, codebooks, steps = sequence_BKT.shape
    steps_T = torch.arange(steps, device=sequence_BKT.device)
    found = inside(frame_of_step(steps_T, codebooks), frames_B)
    found[:, 0] |= steps_T == frames_B[:, None]
    return found
