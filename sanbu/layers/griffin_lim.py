"""Griffin-Lim: a wave from magnitudes alone, with momentum (Griffin and Lim, 1984; Perraudin and others, 2013).

Alternate between spectra that some wave has, P(c) = STFT(iSTFT(c)), and spectra with the given magnitudes A:

t_n = P(c_{n-1}),    c_n = A exp(i angle(t_n + 0.99 (t_n - t_{n-1})))

It needs no training: with the magnitudes nearest to a mel it is the floor of every vocoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sanbu.layers.spectrogram import Mel, envelope, hann, istft, mel_filters, overlap_add
from sanbu.noise import uniform_at

ITERATIONS, MOMENTUM = 60, 0.99
SOLVES = 30  # steps of the search for magnitudes


def linear_magnitudes(mel_BMF: Tensor, mel: Mel, solves: int = SOLVES) -> Tensor:
    """Magnitudes [B, n_fft / 2 + 1, F], not negative, whose mel spectrogram is nearest to a log-mel.

    Multiplicative updates (Lee and Seung, 2001), from the transposed filters; 0 where no filter reaches.
    """
    filters_MC = mel_filters(mel, mel_BMF.device)
    wanted = filters_MC.T @ mel_BMF.exp()
    magnitudes = wanted
    for _ in range(solves):
        magnitudes = settled(magnitudes, mel_BMF, mel)
    return magnitudes


def settled(magnitudes_BCF: Tensor, mel_BMF: Tensor, mel: Mel) -> Tensor:
    """Magnitudes one step nearer to a log-mel; where no filter reaches they stay as they are."""
    filters_MC = mel_filters(mel, mel_BMF.device)
    wanted = filters_MC.T @ mel_BMF.exp()
    nearer = magnitudes_BCF * wanted / (filters_MC.T @ (filters_MC @ magnitudes_BCF) + 1e-10)
    return torch.where(filters_MC.any(0)[:, None], nearer, magnitudes_BCF)


def griffin_lim(mel_BMF: Tensor, mel: Mel, seeds_B: Tensor, iterations: int = ITERATIONS, first: int = 0) -> Tensor:
    """Waves [B, F hop] of log-mels; the first phases are random, by seed and by the number of the `first` frame."""
    target = linear_magnitudes(mel_BMF, mel)
    spectrum = phases(target, mel, seeds_B, first, iterations)
    samples = mel.samples(target.shape[2])
    return istft(spectrum, mel.n_fft, mel.hop, mel.window, mel.padding, samples)


def phases(target_BCF: Tensor, mel: Mel, seeds_B: Tensor, first: int, iterations: int) -> Tensor:
    """A complex spectrum with these magnitudes [B, n_fft / 2 + 1, F]; the phases are found.

    first: the number of the first frame, which its random phases depend on, besides the seed. A frame depends on
    n_fft / hop - 1 frames on each side per iteration. What lies outside the wave is silence here.
    """
    rows, bins, frames = target_BCF.shape
    counter = torch.arange(first * bins, (first + frames) * bins, device=target_BCF.device)
    chance = uniform_at(seeds_B[:, None], counter).float().view(rows, frames, bins)
    target_BFC = target_BCF.transpose(1, 2).contiguous()
    spectrum = torch.polar(target_BFC, 2 * math.pi * chance)
    before = None
    for _ in range(iterations):
        now = consistent(spectrum, mel)
        moved = now if before is None else torch.lerp(before, now, 1 + MOMENTUM)
        spectrum = moved * (target_BFC / moved.abs().clamp(min=1e-16))
        before = now
    return spectrum.transpose(1, 2)


def consistent(spectrum_BFC: Tensor, mel: Mel) -> Tensor:
    """STFT(iSTFT(spectrum)), [B, F, n_fft / 2 + 1], of the whole length of the frames, padding included."""
    weights = hann(mel.window, mel.n_fft, spectrum_BFC.device)
    frames = torch.fft.irfft(spectrum_BFC, mel.n_fft) * weights
    scale = envelope(frames.shape[1], mel.n_fft, mel.hop, mel.window, frames.device).clamp(min=1e-8)
    wave = overlap_add(frames, mel.hop) / scale
    return torch.fft.rfft(wave.unfold(1, mel.n_fft, mel.hop) * weights)
