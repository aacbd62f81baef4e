"""Edit distance of two sequences, and error rates of texts: edits per true character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def edit_distance(true: Sequence[object], read: Sequence[object]) -> int:
    """The least number of insertions, deletions and substitutions (Levenshtein, 1966)."""
    codes: dict[object, int] = {}
    numbers = [[codes.setdefault(each, len(codes)) for each in text] for text in (true, read)]
    first, second = numbers[0], np.array(numbers[1], int)
    row = np.arange(len(second) + 1)
    for count, character in enumerate(first, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (second != character))
        best = np.concatenate(([count], changed)) - np.arange(len(row))
        row = np.minimum.accumulate(best) + np.arange(len(row))  # insertions
    return int(row[-1])


def error_rate(pairs: Iterable[tuple[Sequence[object], Sequence[object]]]) -> float:
    """Edits of all pairs (true, read) per true character."""
    counted = [(edit_distance(true, read), len(true)) for true, read in pairs]
    edits, characters = (sum(each) for each in zip(*counted, strict=True)) if counted else (0, 0)
    return edits / max(1, characters)


def spoken_letters(text: str) -> str:
    """The letters, apostrophes and single spaces of a normalised text: what a recogniser is judged by."""
    return " ".join("".join(each if each.isalpha() or each == "'" else " " for each in text).split())
