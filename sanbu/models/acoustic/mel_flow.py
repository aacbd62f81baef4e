"""A flow around a predicted mel, for texts and scores alike: dx/dt = v(x_t, mu, t), from noise at 0 to the mel at 1.

x_t = (1 - t) noise + t mel, where mels are scaled and mu is the predicted one (Lipman and others, 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sanbu.layers.frame_convolutions import FrameConvolutions
from sanbu.models.acoustic.acoustic import CENTRE, SPREAD, Control, inside
from sanbu.noise import normal_in_order

WAVES = 16  # frequencies of the embedding of a time


class MelFlow(nn.Module):
    """Common to models with a flow: they call `add_flow` once their base is there."""

    def add_flow(self, mels: int, width: int, layers: int, kernel: int, inner: int) -> None:
        """The layers of the velocity; inner: in multiples of the width."""
        self.first = nn.Linear(2 * mels, width)
        self.time = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = FrameConvolutions(layers, width, kernel, inner * width, 0.0)
        self.out = nn.Linear(width, mels)

    def velocity(self, noisy_BMT: Tensor, mean_BMT: Tensor, time_B: Tensor, frames_B: Tensor) -> Tensor:
        """v [B, mels, T] of scaled mels at a time from 0, noise, to 1."""
        inside_BT = inside(frames_B, noisy_BMT.shape[2])
        both_BTX = torch.cat((noisy_BMT, mean_BMT), 1).transpose(1, 2)
        x_BTD = self.first(both_BTX) + self.time(waves_of(time_B))[:, None]
        return self.out(self.blocks(x_BTD, inside_BT)).transpose(1, 2)

    def flow(self, mel_BMT: Tensor, frames_B: Tensor, control: Control, seeds_B: Tensor) -> Tensor:
        """A mel around a predicted one: `control.steps` steps of Euler from noise of the row's seed."""
        mean = scaled(mel_BMT)
        _, M, T = mean.shape
        x = control.temperature * normal_in_order(seeds_B, T, M).transpose(1, 2)
        for step in range(control.steps):
            time_B = torch.full((len(x),), step / control.steps, device=x.device)
            x = x + self.velocity(x, mean, time_B, frames_B) / control.steps
        return x * SPREAD + CENTRE


def scaled(mel: Tensor) -> Tensor:
    """A log-mel with mean near 0 and deviation near 1."""
    return (mel - CENTRE) / SPREAD


def waves_of(time_B: Tensor) -> Tensor:
    """Sines and cosines [B, 2 WAVES] of times."""
    frequencies = 2.0 ** torch.arange(WAVES, device=time_B.device).mul(0.5) * math.pi / 4
    angles = time_B[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1)
