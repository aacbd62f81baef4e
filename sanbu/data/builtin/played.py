"""The built-in music as sound: pieces by the small grammar, played by the synthesiser, for vocoders."""

from __future__ import annotations

from pathlib import Path

from sanbu.codecs.audio import write_wave
from sanbu.codecs.music import synthesiser
from sanbu.data.builtin import compositions
from sanbu.data.cache import cache_folder
from sanbu.progress import progress_rows

FIRST, PIECES = 100_000, 80  # numbers of the pieces; other data sets have the numbers below
RATE = 22050


def played(count: int = PIECES) -> list[Path]:
    """The WAV files of so many pieces, played the first time and then kept."""
    name = f"played-{compositions.RULES}-{synthesiser.RULES}-{count}"
    return sorted(cache_folder(name, lambda folder: play(count, folder)).glob("*.wav"))


def play(count: int, folder: Path) -> None:
    """Write a WAV file per piece: 00000.wav and so on."""
    with progress_rows("playing", count) as progress:
        for number in range(count):
            score = compositions.compose(FIRST + number).score
            write_wave(folder / f"{number:05d}.wav", synthesiser.synthesise(score, RATE), RATE)
            progress(1)
