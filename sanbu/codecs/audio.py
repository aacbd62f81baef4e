"""Audio files: any file as a mono wave at one rate, and a wave as WAV, FLAC, MP3, OGG, Opus or raw PCM.

Files are read and written by soundfile (libsndfile) and resampled by soxr: the extra `speech`.
"""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from sanbu.config import SanbuError, nearest
from sanbu.files import replace_atomically

FORMATS: dict[str, tuple[str, str | None, tuple[int, ...]]] = {  # container, coding, allowed rates (empty: any)
    "wav": ("WAV", "PCM_16", ()),
    "flac": ("FLAC", "PCM_16", ()),
    "mp3": ("MP3", "MPEG_LAYER_III", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    "ogg": ("OGG", "VORBIS", ()),
    "opus": ("OGG", "OPUS", (8000, 12000, 16000, 24000, 48000)),
    "pcm": ("RAW", "PCM_16", (24000,)),
}
READABLE = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au", ".w64", ".caf")
UNWRITABLE = (".aac", ".m4a", ".wma", ".mp4", ".webm", ".amr", ".ac3")  # formats of sound that are not written
HIGHEST = 32767 / 32768  # of a sample in 16 bits
PEAK = 0.95  # of a sound that is scaled
BLOCK = 2**16  # samples that are encoded at a time


class AudioError(SanbuError):
    """A sound that cannot be read or written."""


def library(name: str) -> ModuleType:
    """An optional library of sound. Raises AudioError if it is not installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise AudioError(f"sound needs the package {name!r}; install it with: pip install 'sanbu[speech]'") from None


def read_wave(source: Path | str | bytes, rate: int, name: str = "") -> np.ndarray:
    """A sound file as float32 [N] in [-1, 1] at a rate in Hz: channels averaged, resampled.

    source: a path, or the bytes of a file, which errors call `name`. Raises AudioError, in one line, for a file that
    is missing, damaged or empty, and for samples that are not finite.
    """
    found, own_rate = read_native(source, name)
    return resample(found, own_rate, rate)


def at_peak(wave: np.ndarray) -> np.ndarray:
    """A wave scaled so that its largest sample is 0.95; silence stays as it is."""
    peak = float(np.abs(wave).max()) if len(wave) else 0.0
    return wave * np.float32(PEAK / peak) if peak else wave


def read_native(source: Path | str | bytes, name: str = "") -> tuple[np.ndarray, int]:
    """A sound file as float32 [N], channels averaged, and its own rate in Hz. Raises AudioError as `read_wave`."""
    label = name or (str(source) if not isinstance(source, bytes) else "the sound")
    samples, rate = decode(opened(source, label), label)
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if not len(mono):
        raise AudioError(f"{label} has no samples")
    if not np.isfinite(mono).all():
        raise AudioError(f"{label} has samples that are NaN or infinite")
    return np.ascontiguousarray(mono), int(rate)


def opened(source: Path | str | bytes, label: str) -> BinaryIO:
    """A file that can be read from the start. Raises AudioError if it is missing or empty."""
    if not isinstance(source, bytes):
        try:
            source = Path(source).read_bytes()
        except OSError as error:
            raise AudioError(f"{label} cannot be read as sound: {error.strerror}") from None
    if not source:
        raise AudioError(f"{label} is empty, 0 bytes")
    return io.BytesIO(source)


def decode(file: BinaryIO, label: str) -> tuple[np.ndarray, int]:
    """All samples [N, channels], and their rate. Raises AudioError for a damaged file."""
    soundfile = library("soundfile")
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".") or "unknown format"
        raise AudioError(f"{label} cannot be read as sound: {reason}") from None
    return samples, rate


def resample(wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """A wave at another rate by soxr's high quality; float32."""
    if rate == wanted:
        return wave.astype(np.float32, copy=False)
    return np.asarray(library("soxr").resample(wave.astype(np.float32, copy=False), rate, wanted, quality="HQ"))


def format_of(path: Path | str) -> str:
    """The format that the suffix of a file asks for. Raises AudioError for another suffix."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        known = ", ".join("." + name for name in FORMATS)
        raise AudioError(f"{path}: given the suffix {suffix!r}, allowed: {known}{nearest(suffix, FORMATS)}")
    return suffix


def is_sound(path: Path | str) -> bool:
    """Whether a path has the suffix of a format that can be written. Raises AudioError for one that cannot."""
    suffix = Path(path).suffix.lower()
    if suffix in UNWRITABLE:
        format_of(path)
    return suffix.removeprefix(".") in FORMATS


def rate_for(suffix: str, rate: int) -> int:
    """The rate at which a format is written: the wave's own, or the next higher one that the format allows."""
    allowed = FORMATS[suffix][2]
    if not allowed or rate in allowed:
        return rate
    return min((each for each in allowed if each > rate), default=max(allowed))


def encode(wave: np.ndarray, rate: int, suffix: str = "wav") -> bytes:
    """A wave [N] in [-1, 1] as the bytes of a file; `pcm` is 24 kHz, 16 bits, little-endian, one channel, no header.

    A rate that the format does not have is raised to the next that it has. Raises AudioError for an unknown format.
    """
    if suffix not in FORMATS:
        raise AudioError(f"format: given {suffix!r}, allowed: {', '.join(FORMATS)}{nearest(suffix, FORMATS)}")
    container, coding, _ = FORMATS[suffix]
    written = rate_for(suffix, rate)
    wave = np.clip(resample(np.asarray(wave, np.float32), rate, written), -1, HIGHEST)
    if suffix == "pcm":
        return np.round(wave * 32768).astype("<i2").tobytes()
    file = io.BytesIO()
    library("soundfile")  # for its one-line error
    write_blocks(file, wave, written, {"format": container, "subtype": coding})
    return file.getvalue()


def write_blocks(file: BinaryIO, wave: np.ndarray, rate: int, kind: dict[str, Any]) -> None:
    """Encode a wave a block at a time; libsndfile overflows its stack on a long block of Vorbis."""
    with library("soundfile").SoundFile(file, "w", rate, 1, **kind) as sound:
        for start in range(0, len(wave), BLOCK):
            sound.write(wave[start : start + BLOCK])


def write_wave(path: Path | str, wave: np.ndarray, rate: int) -> Path:
    """Write a wave as the format of the path's suffix, atomically; see `encode`. Raises AudioError."""
    path = Path(path)
    content = encode(wave, rate, format_of(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content)
    return path
