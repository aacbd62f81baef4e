"""Skipped and repeated words of speech, from the words of its text and the words that a recogniser read.

Both are aligned at the least cost: another word costs the share of letters that differ, a word too few or too many
costs 1. A word of the text without a partner is skipped. A word without a partner that sounds like the one before it
or after it is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sanbu.evaluation.edit_distance import edit_distance

ALIKE = 0.34  # share of letters in which a word and its repetition may differ


def lost_words(pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Skipped and repeated words per word of the texts; pairs: (text, what was read), words separated by spaces."""
    skipped, repeated, words = 0, 0, 0
    for text, read in pairs:
        true, found = text.split(), read.split()
        first, second = without_partner(true, found)
        skipped += len(first)
        repeated += sum(is_repeated(found, place) for place in second)
        words += len(true)
    return {"skipped": skipped / max(1, words), "repeated": repeated / max(1, words)}


def is_repeated(words: Sequence[str], place: int) -> bool:
    """Whether a word is like the one before it or after it."""
    beside = [other for other in (place - 1, place + 1) if 0 <= other < len(words)]
    return any(unlike(words[place], words[other]) <= ALIKE for other in beside)


def unlike(first: str, second: str) -> float:
    """The share of letters in which two words differ, 0 to 1."""
    return edit_distance(first, second) / max(len(first), len(second), 1)


def without_partner(true: Sequence[str], found: Sequence[str]) -> tuple[list[int], list[int]]:
    """Places of the words without a partner in the best alignment, in both sequences."""
    cost = np.zeros((len(true) + 1, len(found) + 1))
    cost[:, 0] = np.arange(len(true) + 1)
    cost[0] = np.arange(len(found) + 1)
    for i, word in enumerate(true, 1):
        for j, other in enumerate(found, 1):
            alone = min(cost[i - 1, j], cost[i, j - 1]) + 1
            cost[i, j] = min(alone, cost[i - 1, j - 1] + unlike(word, other))
    i, j = len(true), len(found)
    first, second = [], []
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + unlike(true[i - 1], found[j - 1]):
            i, j = i - 1, j - 1
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            first.append(i)
        else:
            j -= 1
            second.append(j)
    return first, second
