"""A question with its computed answer, random draws keyed by its number, and forms of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from sanbu.data.chance import chance
from sanbu.noise import key, mix_int

A = TypeVar("A")
HELD_OUT = 0.05  # wordings that are reserved for evaluation occur among this share of the questions


@dataclass(frozen=True)
class Question:
    """A question, its right answer in one sentence, near misses, and the name of its skill.

    before: the earlier questions of the conversation with their right answers.
    """

    text: str
    answer: str
    near: tuple[str, ...]
    skill: str
    before: tuple[tuple[str, str], ...] = ()

    @property
    def first(self) -> str:
        """The first question of the conversation."""
        return self.before[0][0] if self.before else self.text


def held_out(text: str) -> bool:
    """Whether a text is held out where data.validation has its default."""
    return chance(text.encode()) < HELD_OUT


class Draws:
    """Random integers, keyed by the number of a question."""

    def __init__(self, number: int, purpose: str = "skills") -> None:
        self.state = key(purpose, number)

    def below(self, high: int) -> int:
        """An integer 0 .. high - 1."""
        self.state = mix_int(self.state + 0x9E3779B97F4A7C15)
        return (self.state & ((1 << 62) - 1)) % high

    def choose(self, items: Sequence[A]) -> A:
        """One of the items."""
        return items[self.below(len(items))]

    def several(self, count: int, high: int) -> list[int]:
        """`count` distinct integers 0 .. high - 1."""
        pool = list(range(high))
        return [pool.pop(self.below(len(pool))) for _ in range(count)]


def sentence(value: object) -> str:
    """A value as a short answer."""
    return f"It is {value}."


def digits(values: list[int]) -> str:
    """Integers as text, separated by spaces."""
    return " ".join(map(str, values))


def worked(start: int, steps: int, skill: str, text: str) -> Question:
    """A sum or a difference; the answer counts step by step, a scratchpad (Nye and others, 2021).

    steps: how far to count, down if negative. Near misses count one too few or one too many.
    """
    others = [steps + one for one in (-1, 1) if start + steps + one >= 0]
    near = tuple(counted(start, other) for other in others)
    return Question(text, counted(start, steps), near, skill)


def counted(start: int, steps: int) -> str:
    """The numbers on the way, and the last of them."""
    sign = 1 if steps > 0 else -1
    values = [start + sign * step for step in range(1, abs(steps) + 1)]
    return shown(values, start + steps)


def occurrences(wanted: str, letters: list[str], skill: str, text: str) -> Question:
    """How often a letter occurs; the answer writes it down as often. Near misses count one too few or one too many."""
    count = letters.count(wanted)
    others = [other for other in (count - 1, count + 1) if other >= 0]
    near = tuple(shown([wanted] * other, other) for other in others)
    return Question(text, shown([wanted] * count, count), near, skill)


def running(values: list[int], better: Callable[[int, int], int], skill: str, text: str) -> Question:
    """The largest or the smallest number. The answer writes each number and after it the best so far, so that the two
    that are compared stand beside each other. Near misses end with another number.
    """
    best = list(accumulate(values, better))
    largest = best[-1]
    steps = [number for pair in zip(values, best, strict=True) for number in pair][1:]
    others = sorted(set(values) - {largest})
    near = tuple(shown([*steps[:-1], value], value) for value in others)
    return Question(text, shown(steps, largest), near or (sentence(largest + 1),), skill)


def shown(steps: Sequence[object], result: object) -> str:
    """A scratchpad and what it leads to."""
    return f"{' '.join(map(str, steps))}. {sentence(result)}" if steps else sentence(result)


def list_question(text: str, values: list[str], skill: str) -> Question:
    """A question whose answer is a list; near misses swap two neighbours."""
    near = []
    for i in range(len(values) - 1):
        other = [*values[:i], values[i + 1], values[i], *values[i + 2 :]]
        if other != values:
            near.append(sentence(" ".join(other)))
    shorter = sentence(" ".join(values[1:]))
    return Question(text, sentence(" ".join(values)), tuple(near) or (shorter,), skill)
