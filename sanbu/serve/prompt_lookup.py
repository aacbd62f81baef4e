"""Prompt lookup: guess the next tokens from earlier text (Saxena, 2023; Yang and others, 2023, arXiv:2304.04487)."""

from __future__ import annotations

from collections.abc import Sequence

SAME = 3  # tokens that must have stood in the same order before


class Lookup:
    """A text, and where each few tokens of it stood last. It grows with `add`."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.text: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}
        self.add(tokens)

    def add(self, tokens: Sequence[int]) -> None:
        """More text."""
        for token in tokens:
            if len(self.text) >= SAME:
                self.after[tuple(self.text[-SAME:])] = len(self.text)
            self.text.append(token)

    def guess(self, ending: Sequence[int], most: int) -> list[int]:
        """What followed the last time the last few tokens of `ending` stood there; what repeats itself is repeated."""
        place = self.after.get(tuple(ending[-SAME:]), len(self.text))
        found = self.text[place : place + most]
        period = len(self.text) - place
        return [found[number % period] for number in range(most)] if found else []


class Guesser:
    """Guesses for one request, from its prediction and its own text. hope: how many are worth their row of a step.

    hope grows while guesses are right and falls to one where they are wrong, so that a text which repeats nothing
    pays little.
    """

    def __init__(self, prompt: Sequence[int], expected: Sequence[int] = ()) -> None:
        self.expected = Lookup([*prompt[-SAME:], *expected])
        self.held, self.seen, self.hope = Lookup(), 0, SAME

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that may follow."""
        self.held.add(tokens[self.seen :])
        self.seen = len(tokens)
        most = min(most, self.hope)
        return self.expected.guess(tokens, most) or self.held.guess(tokens, most)

    def learn(self, right: int) -> None:
        """So many of the last guesses were right."""
        self.hope = 1 + 2 * right
