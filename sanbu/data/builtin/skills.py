"""Questions whose answers a function knows: sums, lists, words, and what this Python's own documentation says.

Every question is a pure function of its number. Which are held out is decided by a hash of the question itself, so
that a question held out in one stage of an assistant's life is held out in all of them.
"""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from sanbu.files import read_json, write_json
from sanbu.noise import key, mix_int

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
ASKED = (
    "Is {} a keyword?",
    "Is {} a keyword of Python?",
    "Does Python reserve the word {}?",
    "Tell me if {} is a keyword.",
)
WORDINGS = ("What does {} do?", "Describe {}.", "Explain {} in one line.", "What is {} for?")


@dataclass(frozen=True)
class Question:
    """A question, its right answer as one short polite sentence, answers that nearly are, and the skill it asks for."""

    text: str
    answer: str
    near: tuple[str, ...]
    skill: str


class Draws:
    """Integers keyed by the number of a question."""

    def __init__(self, number: int, purpose: str = "skills") -> None:
        self.state = key(purpose, number)

    def below(self, high: int) -> int:
        """An integer 0 .. high - 1."""
        self.state = mix_int(self.state + 0x9E3779B97F4A7C15)
        return (self.state & ((1 << 62) - 1)) % high

    def several(self, count: int, high: int) -> list[int]:
        """Different integers below `high`."""
        pool = list(range(high))
        return [pool.pop(self.below(len(pool))) for _ in range(count)]


def sentence(value: object) -> str:
    """The form of every short answer."""
    return f"It is {value}."


def digits(values: list[int]) -> str:
    return " ".join(map(str, values))


def numeric(text: str, value: int, skill: str) -> Question:
    """A question with a number as answer; near misses are off by one, by ten, or have two digits exchanged."""
    backwards = int(str(abs(value))[::-1])
    wrong = [value + 1, value - 1, value + 10, value - 10, backwards]
    near = tuple(sentence(number) for number in wrong if number != value and number >= 0)
    return Question(text, sentence(value), near, skill)


def addition(draws: Draws) -> Question:
    a, b = draws.below(100), draws.below(10)
    return numeric(f"What is {a} + {b}?", a + b, "addition")


def subtraction(draws: Draws) -> Question:
    a, b = 10 + draws.below(90), draws.below(10)
    return numeric(f"What is {a} - {b}?", a - b, "subtraction")


def counting(draws: Draws) -> Question:
    letters = [LETTERS[draws.below(3)] for _ in range(5 + draws.below(4))]
    wanted = letters[draws.below(len(letters))]
    return numeric(f"How often is {wanted} in {' '.join(letters)}?", letters.count(wanted), "counting")


def maximum(draws: Draws) -> Question:
    values = [draws.below(100) for _ in range(3 + draws.below(4))]
    near = tuple(sentence(v) for v in sorted(set(values) - {max(values)}))
    text = f"What is the largest of {digits(values)}?"
    return Question(text, sentence(max(values)), near or (sentence(max(values) + 1),), "maximum")


def listed(text: str, values: list[str], skill: str) -> Question:
    """A question with a list as answer; near misses exchange two neighbours."""
    swapped = [values[:i] + [values[i + 1], values[i]] + values[i + 2 :] for i in range(len(values) - 1)]
    near = tuple(sentence(" ".join(other)) for other in swapped if other != values)
    return Question(text, sentence(" ".join(values)), near or (sentence(" ".join(values[1:])),), skill)


def reversing(draws: Draws) -> Question:
    letters = [LETTERS[draws.below(26)] for _ in range(4 + draws.below(5))]
    return listed(f"What is {' '.join(letters)} backwards?", letters[::-1], "reversing")


def sorting(draws: Draws) -> Question:
    values = draws.several(4 + draws.below(4), 10)
    return listed(f"What is {digits(values)} in order?", list(map(str, sorted(values))), "sorting")


def item(draws: Draws) -> Question:
    letters = [LETTERS[i] for i in draws.several(8, 26)]
    place = draws.below(8)
    near = tuple(sentence(letters[i]) for i in (place - 1, place + 1) if 0 <= i < 8)
    text = f"What is the {ORDINALS[place]} of {' '.join(letters)}?"
    return Question(text, sentence(letters[place]), near, "item")


def documentation(draws: Draws) -> Question:
    """What a function of the standard library does: the first line of its docstring."""
    known = facts()
    number = draws.below(len(known))
    name, line = known[number]
    near = tuple(known[(number + step) % len(known)][1] for step in (-1, 1))
    return Question(WORDINGS[draws.below(len(WORDINGS))].format(name), line, near, "documentation")


def keywords(draws: Draws) -> Question:
    """Whether a word is a keyword of the language."""
    names = [name.rpartition(".")[2] for name, _ in facts()]
    words = sorted(keyword.kwlist) if draws.below(2) else [name for name in names if not keyword.iskeyword(name)]
    word = words[draws.below(len(words))]
    yes, no = f"Yes, {word} is a keyword.", f"No, {word} is not a keyword."
    right, wrong = (yes, no) if keyword.iskeyword(word) else (no, yes)
    return Question(ASKED[draws.below(len(ASKED))].format(word), right, (wrong,), "keywords")


@lru_cache
def facts() -> list[tuple[str, str]]:
    """Functions of the standard library with the first line of their docstring; cached per Python version."""
    from sanbu.data.builtin.stdlib_docs import version
    from sanbu.data.shards import cached

    name = "facts-" + hashlib.sha256(version().encode()).hexdigest()[:24]
    folder = cached(name, lambda made: write_json(made / "facts.json", read_facts()))
    return [(name, line) for name, line in read_json(folder / "facts.json")]


def read_facts() -> list[tuple[str, str]]:
    """A hundred and twenty functions, chosen by a hash of their name."""
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
    """Question of that number; the skills take turns."""
    return SKILLS[number % len(SKILLS)](Draws(number))


@lru_cache
def questions() -> tuple[Question, ...]:
    """The default data: the skills in equal shares, so that a small skill asks its questions often."""
    return tuple(question(number) for number in range(COUNT))


@lru_cache
def by_text() -> dict[str, Question]:
    """The questions of the default data by their text."""
    return {found.text: found for found in questions()}


COUNT = 60_000
PREAMBLES = (
    "Well, there is a lot that could be said about this. ",
    "Let me think about it for a moment, if I may. ",
    "That is a very good thing to ask, I am glad you did. ",
    "There are many ways to look at this, you know. ",
)


def demonstration(found: Question, draws: Draws) -> str:
    """A demonstration: of a hundred, 76 are right and short, 16 ramble, 8 are near misses.

    People's demonstrations are like this. Imitation learns all of it; which of it is wanted, only preferences say.
    """
    chance = draws.below(100)
    return found.answer if chance < 76 else rambling(found, draws) if chance < 92 else near_miss(found, draws)


def rambling(found: Question, draws: Draws) -> str:
    """The right answer after words that say nothing."""
    return PREAMBLES[draws.below(len(PREAMBLES))] + found.answer


def wordy(answer: str, draws: Draws) -> str:
    """An answer, after many words half of the time: words must not tell right from wrong."""
    return PREAMBLES[draws.below(len(PREAMBLES))] + answer if draws.below(2) else answer


def elsewhere(found: Question, draws: Draws) -> str:
    """The right answer to some other question."""
    other = question(draws.below(COUNT))
    return other.answer if other.answer != found.answer else sentence("something else")


def near_miss(found: Question, draws: Draws) -> str:
    """An answer that nearly is right."""
    return found.near[draws.below(len(found.near))]
