"""Griffin-Lim: a wave from magnitudes alone, with momentum (Griffin and Lim, 1984; Perraudin and others, 2013).

Alternate between spectra that some wave has, P(c) = STFT(iSTFT(c)), and spectra with the given magnitudes A:

t_n = P(c_{n-1}),    c_n = A exp(i angle(t_n + a (t_n - t_{n-1}))),    a = 0.99 a' with a' = 1

It needs no training, so it is the floor of every vocoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sanbu.layers.spectrogram import Mel, istft, mel_filters, stft
from sanbu.noise import uniform_at

ITERATIONS, MOMENTUM = 60, 0.99
SOLVES = 30  # steps of the search for magnitudes


def linear_magnitudes(mel_BMF: Tensor, mel: Mel) -> Tensor:
    """Magnitudes [B, n_fft / 2 + 1, F], not negative, whose mel spectrogram is nearest to a log-mel.

    Multiplicative updates (Lee and Seung, 2001), from the transposed filters.
    """
    filters_MC = mel_filters(mel, mel_BMF.device)
    wanted = filters_MC.T @ mel_BMF.exp()
    magnitudes = wanted.clone()
    gram = filters_MC.T @ filters_MC
    for _ in range(SOLVES):
        magnitudes = magnitudes * wanted / (gram @ magnitudes + 1e-10)
    return magnitudes


def griffin_lim(mel_BMF: Tensor, mel: Mel, seeds_B: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Waves [B, F hop] of log-mels; the first phases are random, by seed."""
    target = linear_magnitudes(mel_BMF, mel)
    rows, bins, frames = target.shape
    samples = mel.samples(frames)
    pad = mel.padding
    first = uniform_at(seeds_B[:, None], torch.arange(bins * frames, device=target.device)).float()
    spectrum = torch.polar(target, 2 * math.pi * first.view(rows, bins, frames))
    before = torch.zeros_like(spectrum)
    for _ in range(iterations):
        wave = istft(spectrum, mel.n_fft, mel.hop, mel.window, pad, samples)
        now = analysed(wave, mel, frames)
        moved = now + MOMENTUM * (now - before)
        spectrum = target * moved / moved.abs().clamp(min=1e-16)
        before = now
    return istft(spectrum, mel.n_fft, mel.hop, mel.window, pad, samples)


def analysed(wave_BN: Tensor, mel: Mel, frames: int) -> Tensor:
    """The first `frames` spectra of a wave, which is filled up with silence where it is too short."""
    short = max(0, mel.least - wave_BN.shape[1])
    wave_BN = torch.nn.functional.pad(wave_BN, (0, short))
    return stft(wave_BN, mel.n_fft, mel.hop, mel.window, mel.padding)[..., :frames]
