"""Figures of a set of scores, without a listener.

transitions  Jensen-Shannon divergence, in bits from 0 to 1, of pairs of successive pitch intervals in a voice against
             reference scores, mean over voices by their notes; intervals beyond an octave count as one
in_key       share of the sounding time whose pitches lie in the diatonic scale that fits the piece best
regularity   mean cosine of the onsets of a bar with those of the bar before, by voice and step, 0 to 1
copied       share of pieces with 12 successive notes of the first voice as in a training piece: intervals, times and
             lengths
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from sanbu.codecs.music.score import BAR, VOICES, Note, Score

FARTHEST = 13  # semitones of an interval that is longer than an octave
RUN = 12  # notes
SCALE = (0, 2, 4, 5, 7, 9, 11)
Run = tuple[tuple[int, int, int], ...]


def voice_of(score: Score, voice: int) -> list[Note]:
    """The notes of a voice in order; of notes that begin together the highest alone."""
    found: dict[int, Note] = {note.start: note for note in score.notes if note.voice == voice}
    return list(found.values())


def intervals(notes: Sequence[Note]) -> list[int]:
    """Semitones between successive notes, at most 13 up or down."""
    pitches = [note.pitch for note in notes]
    return np.clip(np.diff(pitches), -FARTHEST, FARTHEST).tolist()


def transitions(scores: Iterable[Score]) -> list[Counter[tuple[int, int]]]:
    """How often each pair of successive intervals occurs, by voice."""
    found: list[Counter[tuple[int, int]]] = [Counter() for _ in VOICES]
    for score in scores:
        for voice, counts in enumerate(found):
            counts.update(pairwise(intervals(voice_of(score, voice))))
    return found


def divergence(first: Counter[tuple[int, int]], second: Counter[tuple[int, int]]) -> float:
    """Jensen-Shannon divergence of two counts, bits; 1 if one of them is empty."""
    if not first or not second:
        return float(bool(first) != bool(second))
    keys = sorted(first.keys() | second.keys())
    p, q = (np.array([counts[key] for key in keys]) for counts in (first, second))
    p, q = p / p.sum(), q / q.sum()
    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def entropy(p: np.ndarray) -> float:
    """Bits."""
    positive = p[p > 0]
    return float(-(positive * np.log2(positive)).sum())


def transition_divergence(scores: Sequence[Score], reference: Sequence[Score]) -> float:
    """The divergence of scores from reference scores, mean over voices by the notes of the reference."""
    ours, theirs = transitions(scores), transitions(reference)
    weights = np.array([counts.total() for counts in theirs])
    each = [divergence(a, b) for a, b in zip(ours, theirs, strict=True)]
    return float(np.average(each, weights=weights)) if weights.sum() else 1.0


def in_key(score: Score) -> float:
    """The share of sounding time in the best of the twelve diatonic scales."""
    classes = np.zeros(12)
    for note in score.notes:
        classes[note.pitch % 12] += note.length
    shares = [classes[[(tonic + step) % 12 for step in SCALE]].sum() for tonic in range(12)]
    return float(max(shares) / classes.sum())


def regularity(score: Score) -> float:
    """The mean cosine of onsets of successive bars; 0 for a piece of one bar."""
    bars = -(-score.steps // BAR)
    onsets = np.zeros((bars, len(VOICES) * BAR))
    for note in score.notes:
        onsets[note.start // BAR, note.voice * BAR + note.start % BAR] = 1
    sizes = np.linalg.norm(onsets, axis=1)
    products = (onsets[1:] * onsets[:-1]).sum(1)
    cosines = products / np.maximum(1e-9, sizes[1:] * sizes[:-1])
    return float(cosines.mean()) if bars > 1 else 0.0


def runs_of(score: Score) -> Iterator[Run]:
    """Every 12 successive notes of the first voice that sounds: interval, time since the note before, length."""
    notes = voice_of(score, min(note.voice for note in score.notes))
    rows = np.array([(note.pitch, note.start, note.length) for note in notes])
    rows[1:, :2] -= rows[:-1, :2].copy()
    moves = [(pitch, time, length) for pitch, time, length in rows[1:].tolist()]
    for start in range(len(moves) - RUN + 2):
        yield tuple(moves[start : start + RUN - 1])


def figures(scores: Sequence[Score], reference: Sequence[Score], known: set[Run]) -> dict[str, float]:
    """The figures of scores. known: the runs of the training pieces."""
    return {
        "transitions": transition_divergence(scores, reference),
        "in_key": float(np.mean([in_key(score) for score in scores])),
        "regularity": float(np.mean([regularity(score) for score in scores])),
        "copied": float(np.mean([any(run in known for run in runs_of(score)) for score in scores])),
    }
