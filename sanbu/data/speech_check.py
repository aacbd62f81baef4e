"""What is wrong with a corpus of speech, before an hour of training is lost to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from sanbu.codecs.audio import AudioError, read_native
from sanbu.codecs.speech.espeak import check_language
from sanbu.codecs.speech.languages import ENGLISH, spoken_text, written_letters
from sanbu.data.builtin import spoken
from sanbu.data.speech_files import Utterance, utterances
from sanbu.progress import progress_rows

QUIET = 0.01  # peak of a sound that is all but silent
CLIPPED = 0.001  # fraction of samples at the limit
FAST, SLOW = 25.0, 3.0  # letters per second of speech
PAUSE = 1.0  # seconds of silence at an end
SHORT, LONG = 0.3, 15.0  # seconds


@dataclass(frozen=True)
class Problem:
    """kind: the same words for all files with this fault. detail: of this file."""

    name: str
    kind: str
    detail: str


@dataclass(frozen=True)
class Checked:
    """A corpus: its problems, utterances, seconds, voices and rates in Hz."""

    problems: list[Problem]
    utterances: int
    seconds: float
    voices: int
    rates: list[int]


def check(path: str, rate: int, language: str = ENGLISH) -> Checked:
    """Read every utterance of a corpus. rate: that a model will use, Hz. Raises SanbuError if there is none."""
    check_language(language)
    found = utterances(path, spoken.SENTENCES, 0, spoken.VOICES)
    problems: list[Problem] = []
    seconds, rates = 0.0, set()
    with progress_rows("checking", len(found)) as progress:
        for each in found:
            progress(1)
            try:
                wave, own = read_native(each.sound, each.name)
            except AudioError as error:
                problems.append(Problem(each.name, "cannot be read", str(error)))
                continue
            seconds += len(wave) / own
            rates.add(own)
            problems += of_sound(each, wave, own, rate)
            problems += chain(of_text(each, len(wave) / own, language), of_times(each, len(wave)))
    return Checked(problems, len(found), seconds, len({each.voice for each in found}), sorted(rates))


def of_sound(each: Utterance, wave: np.ndarray, own: int, rate: int) -> Iterator[Problem]:
    """Silence, clipping, a low rate, long pauses, odd lengths."""
    level, seconds = np.abs(wave), len(wave) / own
    peak = float(level.max())
    if peak < QUIET:
        yield Problem(each.name, "silence", f"peak {peak:.4f}")
        return
    limit = float((level > 0.999).mean())
    if limit > CLIPPED:
        yield Problem(each.name, "clipped", f"{limit:.1%} of the samples at the limit")
    if own < rate:
        yield Problem(each.name, "low rate", f"{own} Hz, the model has {rate} Hz")
    if not SHORT <= seconds <= LONG:
        yield Problem(each.name, "odd length", f"{seconds:.2f} s, usual {SHORT:g} to {LONG:g} s")
    heard = np.flatnonzero(level > peak / 50) / own
    for where, pause in (("start", heard[0]), ("end", seconds - heard[-1])):
        if pause > PAUSE:
            yield Problem(each.name, "long pause", f"{pause:.1f} s at the {where}; trim it")


def of_text(each: Utterance, seconds: float, language: str) -> Iterator[Problem]:
    """A text that cannot be spoken, or that does not match the length of its sound."""
    said = spoken_text(each.text, language)
    letters = sum(symbol.isalpha() for symbol in said)
    if letters and not written_letters(said, language):
        yield Problem(each.name, "another script", f"{each.text[:30]!r} needs data.units=phonemes")
    if not letters:
        yield Problem(each.name, "no text", f"{each.text[:30]!r} has nothing that can be spoken")
        return
    speed = letters / seconds
    if not SLOW <= speed <= FAST:
        said = f"{speed:.1f} letters per second, usual {SLOW:g} to {FAST:g}: {each.text[:30]!r}"
        yield Problem(each.name, "text and sound differ", said)


def of_times(each: Utterance, samples: int) -> Iterator[Problem]:
    """Times of symbols that do not end with the sound."""
    if each.ends and (each.ends[-1] != samples or list(each.ends) != sorted(each.ends)):
        said = f"symbols end at {each.ends[-1]}, the sound has {samples} samples"
        yield Problem(each.name, "times do not add up", said)
