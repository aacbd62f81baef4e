"""Synthetic music: pieces of eight bars by a small grammar, the same for the same number.

piece  -> form of phrases, such as A A B A, and a pattern for each accompanying voice
phrase -> chords, one per bar, by a table of successions; a rhythm per bar; a melody over them
melody -> notes of the chord on strong places, otherwise small steps in the scale; the last note is the tonic

All notes are of the scale of the key. A phrase comes back as it was, or with another last bar.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sanbu.codecs.music.score import BAR, Note, Score, score_of
from sanbu.noise import key

NAME, RULES = "music", 1  # RULES: the version of what follows from a number
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
SUCCESSORS = {  # degrees that follow a degree, the more often listed the more often
    "major": {0: (3, 3, 4, 5, 5, 1), 1: (4, 4, 3), 3: (0, 4, 4, 1), 4: (0, 0, 5), 5: (3, 3, 1, 4)},
    "minor": {0: (3, 3, 4, 5, 5, 6), 2: (5, 6), 3: (0, 4, 4, 6), 4: (0, 0, 5), 5: (2, 3, 6), 6: (2, 0, 0)},
}
FORMS = ("AABA", "AABA", "ABAB", "ABAC", "AABb", "AaBA")  # a small letter: the phrase with another last bar
PHRASE = 2  # bars
RHYTHMS = (  # steps of the notes of a bar; negative: a rest
    (4, 4, 4, 4), (4, 4, 8), (8, 4, 4), (2, 2, 4, 4, 4), (6, 2, 4, 4), (6, 2, 8), (4, 2, 2, 4, 4), (2, 2, 2, 2, 4, 4),
    (4, 4, 4, -4), (3, 3, 2, 4, 4), (12, 4),
)  # fmt: skip
BASSES = (  # degree and steps of the notes of a bar
    ((0, 16),),
    ((0, 8), (4, 8)),
    ((0, 6), (0, 2), (4, 8)),
    ((0, 4), (2, 4), (4, 4), (2, 4)),
)
HARMONIES = (  # steps of the chords of a bar; negative: a rest
    (16,),
    (8, 8),
    (-4, 4, -4, 4),
    (-2, 2, -2, 2, -2, 2, -2, 2),
)
ARPEGGIOS = ((0, 1, 2, 1), (0, 1, 2, 3), (2, 1, 0, 1), (0, 2, 1, 2))  # notes of the chord, one per two steps
MELODY, BASS, HARMONY, ARPEGGIO = (62, 84), (36, 50), (52, 66), (64, 81)  # ranges, MIDI numbers
STEPS = (-2, -1, -1, -1, 0, 1, 1, 1, 2)  # of a melody, in degrees of the scale
T = TypeVar("T")
Melody = list[tuple[int, int]]  # pitch and steps of each note; pitch 0 is a rest
Bar = tuple[int, Melody]  # the degree of its chord, and its melody


@dataclass(frozen=True)
class Piece:
    """A score with what it was made of. tonic: pitch class. chords: the degree of each bar."""

    score: Score
    tonic: int
    mode: str
    form: str
    chords: tuple[int, ...]


class Chance:
    """Random choices that are the same in every version of Python."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(key("composition", number))

    def of(self, items: Sequence[T]) -> T:
        """One of these."""
        return items[int(self.random.random() * len(items))]


def compose(number: int) -> Piece:
    """The piece of that number."""
    chance = Chance(number)
    tonic, mode = chance.of(range(12)), chance.of(("major", "major", "minor"))
    tempo, voices = chance.of(range(76, 145, 4)), chance.of((2, 3, 3, 4))
    form = chance.of(FORMS)
    scale = [pitch for pitch in range(128) if (pitch - tonic) % 12 in SCALES[mode]]
    phrases: dict[str, list[Bar]] = {}
    for letter in form:
        if letter.isupper() and letter not in phrases:
            phrases[letter] = phrase(chance, scale, tonic, mode, first=not phrases)
        elif letter not in phrases:
            other = phrase(chance, scale, tonic, mode, first=False)
            phrases[letter] = [*phrases[letter.upper()][:-1], other[-1]]
    bars = [bar for letter in form for bar in phrases[letter]]
    bars[-1] = (0, closing(bars[-1][1], scale, tonic))
    chords = tuple(chord for chord, _ in bars)
    notes = laid([melody for _, melody in bars])
    notes += accompaniment(chance, chords, tonic, mode, voices)
    return Piece(score_of(notes, tempo), tonic, mode, form, chords)


def phrase(chance: Chance, scale: list[int], tonic: int, mode: str, first: bool) -> list[Bar]:
    """Two bars; the first phrase of a piece begins with the tonic's chord."""
    degree = 0 if first else chance.of(tuple(SUCCESSORS[mode]))
    place = scale.index(nearest_in(chord_of(degree, tonic, mode), scale, chance.of(range(66, 79))))
    bars = []
    for _ in range(PHRASE):
        classes = chord_of(degree, tonic, mode)
        melody, time = [], 0
        for steps in chance.of(RHYTHMS):
            place = stepped(chance, place, scale, classes if time % 8 == 0 else None)
            melody.append((scale[place] if steps > 0 else 0, abs(steps)))
            time += abs(steps)
        bars.append((degree, melody))
        degree = chance.of(SUCCESSORS[mode][degree])
    return bars


def stepped(chance: Chance, place: int, scale: list[int], classes: tuple[int, ...] | None) -> int:
    """The next place of a melody in the scale, within its range; classes: those that it may be of, if not all."""
    place += chance.of(STEPS)
    low, high = MELODY
    if scale[place] > high:
        place -= 3
    if scale[place] < low:
        place += 3
    if classes is not None:
        place = scale.index(nearest_in(classes, scale, scale[place]))
    return place


def chord_of(degree: int, tonic: int, mode: str) -> tuple[int, int, int]:
    """The pitch classes of the triad on a degree, root first."""
    scale, root = SCALES[mode] + tuple(each + 12 for each in SCALES[mode]), tonic
    first, third, fifth = (root + scale[degree + step] for step in (0, 2, 4))
    return first % 12, third % 12, fifth % 12


def nearest_in(classes: Sequence[int], pitches: Sequence[int], wanted: int) -> int:
    """Of the pitches of these classes the one nearest to a pitch; of two equally near ones the lower."""
    fitting = [each for each in pitches if each % 12 in classes]
    return min(fitting, key=lambda each: (abs(each - wanted), each))


def closing(melody: Melody, scale: list[int], tonic: int) -> Melody:
    """The melody of the last bar: it ends on the tonic, as a half note."""
    pitch = nearest_in((tonic,), scale, next(pitch for pitch, _ in melody if pitch))
    place = scale.index(pitch)
    return [(scale[place + 1], 4), (scale[place - 1], 4), (pitch, 8)]


def laid(bars: Sequence[Melody]) -> list[Note]:
    """The notes of melodies, bar after bar."""
    found, start = [], 0
    for melody in bars:
        for pitch, steps in melody:
            if pitch:
                found.append(Note(start, 0, pitch, steps))
            start += steps
    return found


def accompaniment(chance: Chance, chords: Sequence[int], tonic: int, mode: str, voices: int) -> list[Note]:
    """Bass, and with three voices chords, with four an arpeggio; each in one pattern throughout, the last bar whole."""
    bass, harmony, arpeggio = chance.of(BASSES), chance.of(HARMONIES), chance.of(ARPEGGIOS)
    notes: list[Note] = []
    for bar, degree in enumerate(chords):
        classes, start = chord_of(degree, tonic, mode), bar * BAR
        last = bar == len(chords) - 1
        notes += bass_of(BASSES[0] if last else bass, classes, start)
        if voices > 2:
            notes += harmony_of(HARMONIES[0] if last else harmony, classes, start)
        if voices > 3 and not last:
            notes += arpeggio_of(arpeggio, classes, start)
    return notes


def bass_of(pattern: Sequence[tuple[int, int]], classes: Sequence[int], start: int) -> list[Note]:
    """Notes of the chord, low."""
    notes = []
    for degree, steps in pattern:
        pitch = within(classes[degree // 2], *BASS)
        notes.append(Note(start, 2, pitch, steps))
        start += steps
    return notes


def harmony_of(pattern: Sequence[int], classes: Sequence[int], start: int) -> list[Note]:
    """The whole chord in each place of a pattern."""
    notes = []
    for steps in pattern:
        if steps > 0:
            notes += [Note(start, 1, within(each, *HARMONY), steps) for each in classes]
        start += abs(steps)
    return notes


def arpeggio_of(pattern: Sequence[int], classes: Sequence[int], start: int) -> list[Note]:
    """Notes of the chord one after another; the fourth is the root an octave higher."""
    ladder = sorted(within(each, *ARPEGGIO) for each in classes)
    ladder.append(ladder[0] + 12)
    places = [ladder[step] for step in pattern] * (BAR // 2 // len(pattern))
    return [Note(start + 2 * number, 3, pitch, 2) for number, pitch in enumerate(places)]


def within(pitch_class: int, low: int, high: int) -> int:
    """The lowest pitch of a class from `low` on. high: at least eleven semitones above it."""
    pitch = low + (pitch_class - low) % 12
    assert pitch <= high
    return pitch
