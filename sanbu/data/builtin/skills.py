"""Questions with computed answers: sums, lists, words, and the documentation of the installed Python.

Every question is a pure function of its number. Held-out questions are chosen by a hash of their text, so a question
that is held out in one stage of the assistant pipeline is held out in all of them.
"""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from sanbu.files import read_json, write_json
from sanbu.noise import key, mix_int

A = TypeVar("A")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
KEYWORD_WORDINGS = (
    "Is {} a keyword?",
    "Is {} a keyword of Python?",
    "Does Python reserve the word {}?",
    "Tell me if {} is a keyword.",
)
FUNCTION_WORDINGS = ("What does {} do?", "Describe {}.", "Explain {} in one line.", "What is {} for?")


@dataclass(frozen=True)
class Question:
    """A question, its right answer in one sentence, near misses, and the name of its skill."""

    text: str
    answer: str
    near: tuple[str, ...]
    skill: str


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


def number_question(text: str, value: int, skill: str) -> Question:
    """A question whose answer is a number; near misses are off by one or ten, or have the digits reversed."""
    backwards = int(str(abs(value))[::-1])
    wrong = [value + 1, value - 1, value + 10, value - 10, backwards]
    near = tuple(sentence(number) for number in wrong if number != value and number >= 0)
    return Question(text, sentence(value), near, skill)


def addition(draws: Draws) -> Question:
    a, b = draws.below(100), draws.below(10)
    return number_question(f"What is {a} + {b}?", a + b, "addition")


def subtraction(draws: Draws) -> Question:
    a, b = 10 + draws.below(90), draws.below(10)
    return number_question(f"What is {a} - {b}?", a - b, "subtraction")


def counting(draws: Draws) -> Question:
    letters = [LETTERS[draws.below(3)] for _ in range(5 + draws.below(4))]
    wanted = draws.choose(letters)
    return number_question(f"How often is {wanted} in {' '.join(letters)}?", letters.count(wanted), "counting")


def maximum(draws: Draws) -> Question:
    values = [draws.below(100) for _ in range(3 + draws.below(4))]
    near = tuple(sentence(v) for v in sorted(set(values) - {max(values)}))
    text = f"What is the largest of {digits(values)}?"
    return Question(text, sentence(max(values)), near or (sentence(max(values) + 1),), "maximum")


def list_question(text: str, values: list[str], skill: str) -> Question:
    """A question whose answer is a list; near misses swap two neighbours."""
    near = []
    for i in range(len(values) - 1):
        other = [*values[:i], values[i + 1], values[i], *values[i + 2 :]]
        if other != values:
            near.append(sentence(" ".join(other)))
    shorter = sentence(" ".join(values[1:]))
    return Question(text, sentence(" ".join(values)), tuple(near) or (shorter,), skill)


def reversing(draws: Draws) -> Question:
    letters = [LETTERS[draws.below(26)] for _ in range(4 + draws.below(5))]
    return list_question(f"What is {' '.join(letters)} backwards?", letters[::-1], "reversing")


def sorting(draws: Draws) -> Question:
    values = draws.several(4 + draws.below(4), 10)
    return list_question(f"What is {digits(values)} in order?", list(map(str, sorted(values))), "sorting")


def item(draws: Draws) -> Question:
    letters = [LETTERS[i] for i in draws.several(8, 26)]
    place = draws.below(8)
    near = [sentence(letters[i]) for i in (place - 1, place + 1) if 0 <= i < 8]
    text = f"What is the {ORDINALS[place]} of {' '.join(letters)}?"
    return Question(text, sentence(letters[place]), tuple(near), "item")


def documentation(draws: Draws) -> Question:
    """What a function of the standard library does; the answer is the first line of its docstring."""
    known = facts()
    number = draws.below(len(known))
    name, line = known[number]
    _, before = known[(number - 1) % len(known)]
    _, after = known[(number + 1) % len(known)]
    return Question(draws.choose(FUNCTION_WORDINGS).format(name), line, (before, after), "documentation")


def keywords(draws: Draws) -> Question:
    """Whether a word is a keyword of Python."""
    names = [name.rpartition(".")[2] for name, _ in facts()]
    words = sorted(keyword.kwlist) if draws.below(2) else [name for name in names if not keyword.iskeyword(name)]
    word = draws.choose(words)
    yes, no = f"Yes, {word} is a keyword.", f"No, {word} is not a keyword."
    right, wrong = (yes, no) if keyword.iskeyword(word) else (no, yes)
    return Question(draws.choose(KEYWORD_WORDINGS).format(word), right, (wrong,), "keywords")


@lru_cache
def facts() -> list[tuple[str, str]]:
    """Functions of the standard library with the first line of their docstring; cached per Python version."""
    from sanbu.data.builtin.stdlib_docs import version
    from sanbu.data.cache import cache_folder

    name = "facts-" + hashlib.sha256(version().encode()).hexdigest()[:24]
    folder = cache_folder(name, lambda made: write_json(made / "facts.json", read_facts()))
    return [(name, line) for name, line in read_json(folder / "facts.json")]


def read_facts() -> list[tuple[str, str]]:
    """Names and first docstring lines of 120 functions, chosen by a hash of the name."""
    from sanbu.data.builtin.stdlib_docs import docstrings

    found: dict[str, str] = {}
    for text in docstrings():
        head, _, body = text.partition("\n\n")
        name, line = head.partition("(")[0], body.split("\n")[0].strip()
        if re.fullmatch(r"[a-z]+\.[a-z]+", name) and "(" in head and 15 <= len(line) <= 48 and line.endswith("."):
            found.setdefault(name, line)
    return sorted(found.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())[:120]


SKILLS: tuple[Callable[[Draws], Question], ...] = (
    addition,
    subtraction,
    counting,
    maximum,
    reversing,
    sorting,
    item,
    documentation,
    keywords,
)


def question(number: int) -> Question:
    """The question of a number; skills alternate."""
    return SKILLS[number % len(SKILLS)](Draws(number))


@lru_cache
def questions() -> tuple[Question, ...]:
    """The questions of the built-in data, in equal shares per skill; skills with few questions repeat them."""
    return tuple(question(number) for number in range(COUNT))


@lru_cache
def by_text() -> dict[str, Question]:
    """The questions of the built-in data by their text."""
    return {found.text: found for found in questions()}


COUNT = 60_000
PREAMBLES = (
    "Well, there is a lot that could be said about this. ",
    "Let me think about it for a moment, if I may. ",
    "That is a very good thing to ask, I am glad you did. ",
    "There are many ways to look at this, you know. ",
)


def demonstration(found: Question, draws: Draws) -> str:
    """An answer to imitate: right and short in 76% of all draws, rambling in 16%, a near miss in 8%.

    This models demonstrations by people. Imitation learns the whole mixture; preferences tell which part is wanted.
    """
    chance = draws.below(100)
    if chance < 76:
        return found.answer
    return ramble(found, draws) if chance < 92 else near_miss(found, draws)


def ramble(found: Question, draws: Draws) -> str:
    """The right answer after an empty preamble."""
    return draws.choose(PREAMBLES) + found.answer


def maybe_ramble(answer: str, draws: Draws) -> str:
    """The answer, in half of all draws after a preamble, so that preambles do not mark right answers."""
    return draws.choose(PREAMBLES) + answer if draws.below(2) else answer


def other_answer(found: Question, draws: Draws) -> str:
    """The right answer to another question."""
    other = question(draws.below(COUNT))
    return other.answer if other.answer != found.answer else sentence("something else")


def near_miss(found: Question, draws: Draws) -> str:
    """One of the near misses of a question."""
    return draws.choose(found.near)
