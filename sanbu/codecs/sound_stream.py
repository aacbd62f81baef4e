"""A wave encoded while it is made: the bytes of a sound file, piece by piece.

WAV gets a header of unknown length. MP3 has a constant bit rate, so that readers can tell its length without the tag
that a whole file begins with. Ogg and Opus come in pages of several seconds. FLAC is given out at the end, because
readers take the number of samples from its header.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from sanbu.codecs.audio import FORMATS, HIGHEST, AudioError, library, rate_for
from sanbu.config import nearest

UNKNOWN = 0xFFFFFFFF  # length of a WAV file that has not ended


class SoundStream:
    """Encode pieces of a wave [N] in [-1, 1] at a rate in Hz. Raises AudioError for an unknown format."""

    def __init__(self, rate: int, suffix: str) -> None:
        if suffix not in FORMATS:
            raise AudioError(f"format: given {suffix!r}, allowed: {', '.join(FORMATS)}{nearest(suffix, FORMATS)}")
        self.suffix, self.rate = suffix, rate_for(suffix, rate)
        self.resampler: Any = None
        if self.rate != rate:
            self.resampler = library("soxr").ResampleStream(rate, self.rate, 1, dtype="float32", quality="HQ")
        self.file, self.sent, self.sound = io.BytesIO(), 0, None
        if suffix not in ("wav", "pcm"):
            container, coding, _ = FORMATS[suffix]
            opened = library("soundfile").SoundFile
            kind: dict[str, Any] = {"format": container, "subtype": coding}
            if suffix == "mp3":
                kind |= {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
            self.sound = opened(self.file, "w", self.rate, 1, **kind)
        elif suffix == "wav":
            self.file.write(wav_header(self.rate))

    def feed(self, wave: np.ndarray, last: bool = False) -> bytes:
        """The bytes that a piece adds; after the last one the stream is closed."""
        if self.resampler is not None:
            wave = self.resampler.resample_chunk(np.ascontiguousarray(wave, np.float32), last)
        wave = np.clip(wave, -1, HIGHEST)
        if self.sound is None:
            self.file.write(np.round(wave * 32768).astype("<i2").tobytes())
        else:
            self.sound.write(wave)
            if last:
                self.sound.close()
        if self.suffix == "flac" and not last:
            return b""
        self.file.seek(self.sent)
        fresh = self.file.read()
        self.sent += len(fresh)
        return fresh

    def encode(self, pieces: Iterator[np.ndarray]) -> Iterator[bytes]:
        """The bytes of all pieces, and what ends the file."""
        for piece in pieces:
            yield self.feed(piece)
        yield self.feed(np.zeros(0, np.float32), last=True)


def wav_header(rate: int) -> bytes:
    """The header of a WAV file of 16 bits, one channel and unknown length."""
    about = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    length = struct.pack("<I", UNKNOWN)
    return b"RIFF" + length + b"WAVEfmt " + struct.pack("<I", len(about)) + about + b"data" + length
