"""Prompt lookup: guess the next tokens from earlier text (Saxena, 2023; Yang and others, 2023, arXiv:2304.04487)."""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3  # length of the match


class Lookup:
    """A text, and the last position of each of its n-grams. It grows with `add`."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.text: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}
        self.add(tokens)

    def add(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        for token in tokens:
            if len(self.text) >= NGRAM:
                self.after[tuple(self.text[-NGRAM:])] = len(self.text)
            self.text.append(token)

    def guess(self, ending: Sequence[int], most: int) -> list[int]:
        """The tokens after the last occurrence of the final n-gram of `ending`; at the end of the text they repeat."""
        place = self.after.get(tuple(ending[-NGRAM:]), len(self.text))
        found = self.text[place : place + most]
        period = len(self.text) - place
        return [found[number % period] for number in range(most)] if found else []


class Guesser:
    """Speculative tokens of one request, from its predicted output and its own text.

    limit: tokens per guess; it grows while guesses are accepted and falls to 1 when they are rejected, so that text
    without repetition costs little.
    """

    def __init__(self, prompt: Sequence[int], expected: Sequence[int] = ()) -> None:
        self.expected = Lookup([*prompt[-NGRAM:], *expected])
        self.held, self.seen, self.limit = Lookup(), 0, NGRAM

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow."""
        self.held.add(tokens[self.seen :])
        self.seen = len(tokens)
        most = min(most, self.limit)
        return self.expected.guess(tokens, most) or self.held.guess(tokens, most)

    def learn(self, right: int) -> None:
        """Set the limit from the number of tokens accepted from the last guess."""
        self.limit = 1 + 2 * right
