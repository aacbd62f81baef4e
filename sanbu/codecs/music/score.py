"""A score: notes on a grid of sixteenths, in up to four voices, at one tempo.

A bar has 16 steps, whatever the metre of a file. A score has at least one note, and two notes of one voice and pitch
never sound at the same time: the earlier one ends where the later one begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sanbu.config import SanbuError

BEAT, BAR = 4, 16  # steps
VOICES = ("melody", "harmony", "bass", "arpeggio")
LOWEST, PITCHES = 21, 88  # the keys of a piano, as MIDI numbers
LONGEST = 32  # steps of a note
SLOWEST, FASTEST, STEP = 40, 240, 4  # beats per minute


class Note(NamedTuple):
    """start, length: steps. voice: number of a voice. pitch: MIDI number, 60 is middle C (261.6 Hz)."""

    start: int
    voice: int
    pitch: int
    length: int


@dataclass(frozen=True)
class Score:
    """notes: by start, voice and pitch. tempo: beats per minute, a multiple of 4 from 40 to 240."""

    notes: tuple[Note, ...]
    tempo: int = 120

    @property
    def steps(self) -> int:
        """Steps until the last note has ended."""
        return max(note.start + note.length for note in self.notes)

    @property
    def step_seconds(self) -> float:
        """Seconds of a step."""
        return 60 / self.tempo / BEAT

    @property
    def seconds(self) -> float:
        """Seconds until the last note has ended."""
        return self.steps * self.step_seconds


def score_of(notes: Iterable[Note], tempo: float, name: str = "the piece") -> Score:
    """A score of any notes: those outside the piano's keys are left out, and long ones are cut.

    Of two equal onsets the longer note stays. Raises SanbuError, in one line that names the piece, if none is left.
    """
    found: dict[tuple[int, int, int], int] = {}
    for start, voice, pitch, length in notes:
        if LOWEST <= pitch < LOWEST + PITCHES:
            place = (start, voice, pitch)
            found[place] = max(found.get(place, 0), min(LONGEST, max(1, length)))
    if not found:
        raise SanbuError(f"{name} has no notes")
    later: dict[tuple[int, int], int] = {}
    kept = []
    for start, voice, pitch in sorted(found, reverse=True):
        length = found[start, voice, pitch]
        free = later.get((voice, pitch), start + length) - start
        kept.append(Note(start, voice, pitch, min(length, free)))
        later[voice, pitch] = start
    return Score(tuple(sorted(kept)), nearest_tempo(tempo))


def nearest_tempo(tempo: float) -> int:
    """The nearest tempo that a score can have."""
    return int(min(FASTEST, max(SLOWEST, STEP * round(tempo / STEP))))
