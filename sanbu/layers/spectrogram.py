"""Spectrograms: STFT and its inverse, mel filter banks, and log-mels under two named conventions.

A mel spectrogram is what an acoustic model and a vocoder exchange, so both must compute it alike. Common to both
conventions: a periodic Hann window, magnitudes (not powers), triangular filters on Slaney's scale with Slaney's norm,
and the natural logarithm of max(mel, 1e-5). They differ in the padding (by reflection):

hifigan     (n_fft - hop) / 2 samples on each side; N // hop frames, frame t centred on hop (t + 1/2)
tacotron2   n_fft / 2 samples on each side; N // hop + 1 frames, frame t centred on hop t

(Kong and others, "HiFi-GAN", 2020; Shen and others, "Natural TTS synthesis", 2018.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from sanbu.config import Config

KEPT = 64  # windows, filters or envelopes
P = ParamSpec("P")
FLOOR = 1e-5  # of a mel before the logarithm
SILENCE = math.log(FLOOR)  # of a log-mel
BREAK, BELOW, STEP = 1000.0, 200.0 / 3, math.log(6.4) / 27  # Slaney's scale: linear below 1000 Hz, logarithmic above


class Mel(Config):
    """How a wave becomes a log-mel spectrogram. The defaults are those of both original projects."""

    rate: int = Field(22050, ge=1, description="samples per second")
    n_fft: int = Field(1024, ge=2, description="samples per frame of the transform; even")
    hop: int = Field(256, ge=1, description="samples between frames")
    window: int = Field(1024, ge=1, description="samples of the Hann window, at most n_fft")
    mels: int = Field(80, ge=1, description="mel bands")
    fmin: float = Field(0.0, ge=0, description="lowest frequency, Hz")
    fmax: float | None = Field(8000.0, gt=0, description="highest frequency, Hz; none: half of the rate")
    convention: Literal["hifigan", "tacotron2"] = Field("hifigan", description="padding of the ends")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.n_fft % 2 or self.hop > self.n_fft:
            raise ValueError(f"n_fft {self.n_fft} must be even and at least the hop, {self.hop}")
        if not self.hop <= self.window <= self.n_fft:
            raise ValueError(f"window {self.window} must lie between the hop, {self.hop}, and n_fft, {self.n_fft}")
        if not self.fmin < self.top <= self.rate / 2:
            raise ValueError(f"fmin {self.fmin:g} < fmax {self.top:g} <= rate / 2 = {self.rate / 2:g} must hold")
        return self

    @property
    def top(self) -> float:
        """The highest frequency of the filter bank, Hz."""
        return self.rate / 2 if self.fmax is None else self.fmax

    @property
    def padding(self) -> int:
        """Samples by which a wave is extended at each end."""
        return (self.n_fft - self.hop) // 2 if self.convention == "hifigan" else self.n_fft // 2

    @property
    def least(self) -> int:
        """The shortest wave with a spectrogram; a shorter one is filled up with silence."""
        return max(self.padding + 1, self.n_fft - 2 * self.padding)

    def frames(self, samples: int) -> int:
        """The number of frames of so many samples; at least 1."""
        return (max(samples, self.least) + 2 * self.padding - self.n_fft) // self.hop + 1

    def samples(self, frames: int) -> int:
        """The number of samples that a vocoder makes of so many frames: a hop for each."""
        return frames * self.hop

    def difference(self, other: Mel) -> str:
        """How another config differs, in one line such as "hop 256 against 300, mels 80 against 100"; empty: equal."""
        names = type(self).model_fields
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        unlike = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return ", ".join(f"{name} {mine} against {theirs}" for name, (mine, theirs) in unlike.items())


def kept(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The function with its last results kept by their arguments; hollow tensors, which count memory, are not kept."""
    results: dict[Any, Tensor] = {}

    @wraps(function)
    def found(*arguments: P.args, **named: P.kwargs) -> Tensor:
        if type(torch.empty(0)) is not Tensor:
            return function(*arguments, **named)
        if arguments not in results:
            if len(results) >= KEPT:
                results.clear()
            results[arguments] = function(*arguments, **named)
        return results[arguments]

    return found


# -- STFT -------------------------------------------------------------------------------------------------------------


@kept
def hann(window: int, n_fft: int, device: torch.device) -> Tensor:
    """A periodic Hann window, centred in n_fft samples."""
    left = (n_fft - window) // 2
    return F.pad(torch.hann_window(window, device=device), (left, n_fft - window - left))


def stft(wave_BN: Tensor, n_fft: int, hop: int, window: int, padding: int) -> Tensor:
    """Complex spectrum [B, n_fft / 2 + 1, F] of waves, extended by reflection by `padding` samples at each end.

    The wave must be longer than the padding.
    """
    padded = F.pad(wave_BN[:, None], (padding, padding), mode="reflect")[:, 0] if padding else wave_BN
    weights = hann(window, n_fft, wave_BN.device)
    return torch.stft(padded, n_fft, hop, n_fft, weights, center=False, return_complex=True)


def overlap_add(frames_BFL: Tensor, hop: int) -> Tensor:
    """The sum of frames that begin `hop` samples apart, [B, (F - 1) hop + L]."""
    rows, count, length = frames_BFL.shape
    pieces = -(-length // hop)
    blocks = F.pad(frames_BFL, (0, pieces * hop - length)).view(rows, count, pieces, hop)
    total = frames_BFL.new_zeros(rows, count + pieces - 1, hop)
    for piece in range(pieces):
        total[:, piece : piece + count] += blocks[:, :, piece]
    return total.flatten(1)[:, : (count - 1) * hop + length]


def windowed_frames(spectrum_BCF: Tensor, n_fft: int, window: int) -> Tensor:
    """Each spectrum back in time and weighted with the window, [B, F, n_fft]."""
    frames_BFL = torch.fft.irfft(spectrum_BCF.transpose(1, 2), n_fft)
    return frames_BFL * hann(window, n_fft, spectrum_BCF.device)


@kept
def envelope(count: int, n_fft: int, hop: int, window: int, device: torch.device) -> Tensor:
    """The sum of the squared windows of so many frames, [(F - 1) hop + n_fft]."""
    squares = hann(window, n_fft, device).square()
    return overlap_add(squares.expand(1, count, n_fft), hop)[0]


def istft(spectrum_BCF: Tensor, n_fft: int, hop: int, window: int, padding: int, samples: int) -> Tensor:
    """The wave [B, samples] whose STFT is nearest to a spectrum (Griffin and Lim, 1984); the inverse of `stft`."""
    total = overlap_add(windowed_frames(spectrum_BCF, n_fft, window), hop)
    weight = envelope(spectrum_BCF.shape[2], n_fft, hop, window, spectrum_BCF.device)
    whole = total / weight.clamp(min=1e-8)
    cut = whole[:, padding : padding + samples]
    return F.pad(cut, (0, samples - cut.shape[1]))


# -- mels -------------------------------------------------------------------------------------------------------------


def to_mel_scale(hertz: np.ndarray) -> np.ndarray:
    """Frequencies on Slaney's mel scale."""
    octaves = np.log(np.maximum(hertz, BREAK) / BREAK)
    return np.where(hertz < BREAK, hertz / BELOW, BREAK / BELOW + octaves / STEP)


def from_mel_scale(mels: np.ndarray) -> np.ndarray:
    """The inverse of `to_mel_scale`."""
    start = BREAK / BELOW
    above = np.maximum(mels, start) - start
    return np.where(mels < start, mels * BELOW, BREAK * np.exp(STEP * above))


def mel_edges(mel: Mel) -> np.ndarray:
    """The frequencies between which the filters rise and fall, Hz [mels + 2]."""
    low, high = to_mel_scale(np.array([mel.fmin, mel.top]))
    return from_mel_scale(np.linspace(low, high, mel.mels + 2))


def mel_bands(mel: Mel) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each band and half of its width, Hz [mels] each."""
    edges = mel_edges(mel)
    return edges[1:-1], (edges[2:] - edges[:-2]) / 4


@kept
def mel_filters(mel: Mel, device: torch.device) -> Tensor:
    """Triangular filters [mels, n_fft / 2 + 1], each of area 2 / width in Hz (Slaney's norm)."""
    edges = mel_edges(mel)
    bins = np.arange(mel.n_fft // 2 + 1) * (mel.rate / mel.n_fft)
    widths = np.diff(edges)
    slopes = edges[:, None] - bins
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    areas = (edges[2:] - edges[:-2]) / 2
    filters = np.maximum(0, np.minimum(rising, falling)) / areas[:, None]
    return torch.tensor(filters.tolist(), dtype=torch.float32, device=device)


def magnitudes(spectrum: Tensor, mel: Mel) -> Tensor:
    """|spectrum|; `hifigan` adds 1e-9 below the root."""
    squares = spectrum.real.square() + spectrum.imag.square()
    return (squares + 1e-9).sqrt() if mel.convention == "hifigan" else squares.clamp(min=1e-18).sqrt()


def log_mel(wave_BN: Tensor, mel: Mel) -> Tensor:
    """Log-mel spectrogram [B, mels, frames(N)] of waves in [-1, 1] at the config's rate."""
    wave_BN = F.pad(wave_BN, (0, max(0, mel.least - wave_BN.shape[1])))
    return log_mel_of(stft(wave_BN, mel.n_fft, mel.hop, mel.window, mel.padding), mel)


def log_mel_unpadded(wave_BN: Tensor, mel: Mel) -> Tensor:
    """Log-mel of a cut of a wave that already has `mel.padding` samples of context at each end."""
    return log_mel_of(stft(wave_BN, mel.n_fft, mel.hop, mel.window, 0), mel)


def log_mel_of(spectrum_BCF: Tensor, mel: Mel) -> Tensor:
    """Log-mel [B, mels, F] of a complex spectrum."""
    filters = mel_filters(mel, spectrum_BCF.device)
    return (filters @ magnitudes(spectrum_BCF, mel)).clamp(min=FLOOR).log()
