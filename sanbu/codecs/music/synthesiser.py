"""A synthesiser: each voice of a score has an instrument, and the same score always gives the same wave.

additive   sum_k a_k exp(-d_k t) sin(2 pi k f t), with partials below 0.45 of the rate alone, so that none is aliased
plucked    y[n] = x[n] + r sum_j h_j y[n - N - j], a string: noise x of one period goes around a low-pass h
           (Karplus and Strong, 1983; tuned by linear interpolation as in Jaffe and Smith, 1983)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sanbu.codecs.audio import PEAK
from sanbu.codecs.music.score import Score

RULES = 1  # the version of what follows from a score
HIGHEST = 0.45  # of the rate: the highest partial
ATTACK, RELEASE = 0.008, 0.06  # seconds
LOUDNESS = 0.3  # of a note; louder sums are scaled
TAIL = 0.5  # seconds after the last note


@dataclass(frozen=True)
class Instrument:
    """tilt: partial k has amplitude k^-tilt. decay: per second, of the first partial. odd: only odd partials.

    plucked: whether it is a string; then decay is that of the string, and tilt the darkness of the noise.
    """

    tilt: float
    decay: float
    odd: bool = False
    plucked: bool = False
    gain: float = 1.0


INSTRUMENTS = (  # by voice
    Instrument(tilt=1.6, decay=0.7, odd=True),
    Instrument(tilt=0.5, decay=2.0, plucked=True, gain=0.8),
    Instrument(tilt=1.2, decay=1.5, gain=1.2),
    Instrument(tilt=0.0, decay=3.5, plucked=True, gain=0.9),
)


def hertz(pitch: int) -> float:
    """The frequency of a MIDI number: 69 is 440 Hz."""
    return float(440 * 2 ** ((pitch - 69) / 12))


def synthesise(score: Score, rate: int) -> np.ndarray:
    """The wave of a score, float32 [N]. It ends half a second after the last note; its peak is at most 0.95."""
    wave = np.zeros(int((score.seconds + TAIL) * rate) + 1, np.float32)
    for start, voice, pitch, length in score.notes:
        begin = round(start * score.step_seconds * rate)
        tone = sounding(voice, pitch, round(length * score.step_seconds * rate), rate)
        piece = tone[: len(wave) - begin]
        wave[begin : begin + len(piece)] += piece
    peak = float(np.abs(wave).max())
    return wave * np.float32(min(1.0, PEAK / peak)) if peak else wave


def sounding(voice: int, pitch: int, samples: int, rate: int) -> np.ndarray:
    """A note that is held for so many samples and then released."""
    released = int(RELEASE * rate)
    tone = tone_of(voice, pitch, seconds_of(samples + released, rate), rate)[: samples + released].copy()
    tone[samples:] *= np.linspace(1, 0, len(tone) - samples, dtype=np.float32)
    return tone


def seconds_of(samples: int, rate: int) -> int:
    """Whole seconds, a power of two, that hold so many samples."""
    return 1 << max(0, -(-samples // rate) - 1).bit_length()


@lru_cache(maxsize=512)
def tone_of(voice: int, pitch: int, seconds: int, rate: int) -> np.ndarray:
    """A note that is never released."""
    instrument = INSTRUMENTS[voice]
    make = plucked if instrument.plucked else additive
    tone = make(hertz(pitch), seconds * rate, rate, instrument)
    attack = int(ATTACK * rate)
    tone[:attack] *= np.linspace(0, 1, attack)
    return (LOUDNESS * instrument.gain * tone).astype(np.float32)


def additive(frequency: float, samples: int, rate: int, instrument: Instrument) -> np.ndarray:
    """Partials that fade, the higher ones faster; [N] with peak near 1."""
    step = 2 if instrument.odd else 1
    partials = np.arange(1, int(HIGHEST * rate / frequency) + 1, step)[:40]
    time = np.arange(samples) / rate
    amplitudes = partials**-instrument.tilt
    wave = np.zeros(samples)
    for partial, amplitude in zip(partials, amplitudes / amplitudes.sum(), strict=True):
        fading = np.exp(-instrument.decay * np.sqrt(partial) * time)
        angle = 2 * np.pi * partial * frequency * time
        wave += amplitude * fading * np.sin(angle)
    return wave


def plucked(frequency: float, samples: int, rate: int, instrument: Instrument) -> np.ndarray:
    """A plucked string; [N] with peak near 1.

    A trip around the string takes one period: N samples, one of the low-pass (1/4, 1/2, 1/4), and the fraction that is
    left. Its amplitude falls by exp(-decay / frequency) per trip at low frequencies.
    """
    period = rate / frequency
    whole = int(period - 1)
    part = period - 1 - whole
    loop = np.convolve((0.25, 0.5, 0.25), (1 - part, part))
    loop *= np.exp(-instrument.decay / frequency)
    wave = np.zeros(samples + len(loop) + whole)
    begin = len(loop) + whole  # samples of silence before the first
    wave[begin : begin + whole] = burst(whole, instrument.tilt)[:samples]
    for start in range(begin, len(wave), whole):
        end = min(start + whole, len(wave))
        for delay, weight in enumerate(loop, whole):
            wave[start:end] += weight * wave[start - delay : end - delay]
    found = wave[begin:]
    return found / max(1e-9, np.abs(found).max())


def burst(samples: int, darkness: float) -> np.ndarray:
    """Noise of a period, the same for every period of that length, without a mean; darkness: 0 is white."""
    bins = np.arange(1, samples // 2 + 1)
    phases = np.random.Generator(np.random.PCG64(samples)).uniform(0, 2 * np.pi, len(bins))
    spectrum = np.zeros(samples // 2 + 1, complex)
    spectrum[1:] = bins**-darkness * np.exp(1j * phases)
    return np.fft.irfft(spectrum, samples)
