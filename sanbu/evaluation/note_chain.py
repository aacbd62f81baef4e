"""A second-order Markov chain over the notes of each voice: p(note | the two notes before it in its voice), counted.

A note is its pitch, its length and the time since the note before; of notes that begin together the highest alone. The
voices of a piece are drawn without regard to each other. Which voices sound, and the tempo, are those of some piece.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from sanbu.codecs.music.score import VOICES, Note, Score, score_of
from sanbu.evaluation.note_figures import voice_of
from sanbu.noise import Noise

Event = tuple[int, int, int]  # time since the note before, pitch, length
NONE: Event = (-1, 0, 0)  # before the first note, and after the last
MOST = 512  # notes of a voice


class NoteChain:
    """Counted on scores."""

    def __init__(self, scores: Sequence[Score]) -> None:
        self.outlines = [(tuple(sorted({note.voice for note in score.notes})), score.tempo) for score in scores]
        self.next: dict[tuple[int, Event, Event], list[Event]] = defaultdict(list)
        for score in scores:
            for voice in {note.voice for note in score.notes}:
                before, last = NONE, NONE
                for event in [*events_of(voice_of(score, voice)), NONE]:
                    self.next[voice, before, last].append(event)
                    before, last = last, event

    def draw(self, count: int) -> list[Score]:
        """So many pieces, always the same ones."""
        return [self.draw_one(number) for number in range(count)]

    def draw_one(self, number: int) -> Score:
        """A piece."""
        uniform = Noise("note chain", number).uniform(1, 1 + len(VOICES) * MOST)
        chances = iter(uniform[0].tolist())
        voices, tempo = self.outlines[int(next(chances) * len(self.outlines))]
        notes = []
        for voice in voices:
            before, last, time = NONE, NONE, 0
            for _ in range(MOST):
                known = self.next[voice, before, last]
                event = known[int(next(chances) * len(known))]
                if event == NONE:
                    break
                time += event[0]
                notes.append(Note(time, voice, event[1], event[2]))
                before, last = last, event
        return score_of(notes, tempo)


def events_of(notes: Sequence[Note]) -> list[Event]:
    """Notes of a voice as events; the first counts its time from the start of the piece."""
    starts = [0, *(note.start for note in notes)]
    times = [b - a for a, b in pairwise(starts)]
    return [(time, note.pitch, note.length) for time, note in zip(times, notes, strict=True)]
