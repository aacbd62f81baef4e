"""Skipped and repeated words."""

import itertools

import pytest

from sanbu.evaluation.lost_words import lost_words, unlike, without_partner


@pytest.mark.parametrize(
    ("text", "read", "skipped", "repeated"),
    [
        ("one small step for a man", "one small step for a man", 0, 0),
        ("one small step for a man", "one step for a man", 1, 0),
        ("one small step for a man", "", 6, 0),
        ("one small step for a man", "one small small step for a man", 0, 1),
        ("one small step for a man", "one smal small step four a mann", 0, 1),
        ("one small step for a man", "one small blue step for a man", 0, 0),  # too many, but not twice
        ("one small step", "one small step step step", 0, 2),
        ("", "what", 0, 0),
    ],
)
def test_words_that_are_lost(text, read, skipped, repeated):
    words = max(1, len(text.split()))
    assert lost_words([(text, read)]) == {"skipped": skipped / words, "repeated": repeated / words}


def test_the_alignment_has_the_least_cost():
    """Against every way to pair the words in order."""
    true, found = ["to", "be", "or", "not", "to", "be"], ["too", "be", "not", "two", "bee", "be"]

    def cost(pairs):
        return sum(unlike(true[i], found[j]) for i, j in pairs) + len(true) + len(found) - 2 * len(pairs)

    ways = (
        list(zip(rows, columns, strict=True))
        for count in range(7)
        for rows in itertools.combinations(range(6), count)
        for columns in itertools.combinations(range(6), count)
    )
    first, second = without_partner(true, found)
    kept = [[place for place in range(6) if place not in lost] for lost in (first, second)]
    assert cost(list(zip(*kept, strict=True))) == pytest.approx(min(map(cost, ways)))
