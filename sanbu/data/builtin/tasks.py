"""Ten tasks whose answers are computed: sums, lists, words, and the documentation of the installed Python."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Callable
from functools import lru_cache

from sanbu.data.builtin.question import (
    Draws,
    Question,
    digits,
    list_question,
    occurrences,
    running,
    sentence,
    worked,
)
from sanbu.files import read_json, write_json

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LARGEST = 50  # number that one-digit numbers are added to and subtracted from
ORDINALS = ("first", "second", "third", "fourth", "fifth")
KEYWORD_WORDINGS = (
    "Is {} a keyword?",
    "Is {} a keyword of Python?",
    "Does Python reserve the word {}?",
    "Tell me if {} is a keyword.",
)
FUNCTION_WORDINGS = ("What does {} do?", "Describe {}.", "Explain {} in one line.", "What is {} for?")


def addition(draws: Draws) -> Question:
    a, b = draws.below(LARGEST + 1), draws.below(10)
    return worked(a, b, "addition", f"What is {a} + {b}?")


def subtraction(draws: Draws) -> Question:
    b = draws.below(10)
    a = b + draws.below(LARGEST + 1 - b)
    return worked(a, -b, "subtraction", f"What is {a} - {b}?")


def counting(draws: Draws) -> Question:
    letters = [LETTERS[draws.below(3)] for _ in range(3 + draws.below(3))]
    wanted = draws.choose(letters)
    return occurrences(wanted, letters, "counting", f"How often is {wanted} in {' '.join(letters)}?")


def maximum(draws: Draws) -> Question:
    values = [draws.below(100) for _ in range(2 + draws.below(3))]
    return running(values, max, "maximum", f"What is the largest of {digits(values)}?")


def minimum(draws: Draws) -> Question:
    values = [draws.below(100) for _ in range(2 + draws.below(3))]
    return running(values, min, "minimum", f"What is the smallest of {digits(values)}?")


def repeating(draws: Draws) -> Question:
    letters = [LETTERS[i] for i in draws.several(3 + draws.below(5), 26)]
    return list_question(f"Repeat {' '.join(letters)}.", letters, "repeating")


def reversing(draws: Draws) -> Question:
    letters = [LETTERS[i] for i in draws.several(3 + draws.below(3), 26)]
    return list_question(f"What is {' '.join(letters)} backwards?", letters[::-1], "reversing")


def sorting(draws: Draws) -> Question:
    values = draws.several(3 + draws.below(3), 10)
    return list_question(f"What is {digits(values)} in order?", list(map(str, sorted(values))), "sorting")


def item(draws: Draws) -> Question:
    letters = [LETTERS[i] for i in draws.several(len(ORDINALS), 26)]
    place = draws.below(len(ORDINALS))
    places = [i for i in (place - 1, place + 1) if 0 <= i < len(ORDINALS)]
    near = [sentence(letters[i]) for i in places]
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
    word = draws.choose(sorted(keyword.kwlist) if draws.below(2) else other_words())
    yes, no = f"Yes, {word} is a keyword.", f"No, {word} is not a keyword."
    right, wrong = (yes, no) if keyword.iskeyword(word) else (no, yes)
    return Question(draws.choose(KEYWORD_WORDINGS).format(word), right, (wrong,), "keywords")


@lru_cache
def other_words() -> list[str]:
    """Names of functions of the standard library that are no keywords."""
    names = [name.rpartition(".")[2] for name, _ in facts()]
    return [name for name in names if not keyword.iskeyword(name)]


@lru_cache
def facts() -> list[tuple[str, str]]:
    """Functions of the standard library with the first line of their docstring; cached per Python version."""
    from sanbu.data.builtin.stdlib_docs import version
    from sanbu.data.cache import cache_folder

    name = "facts-40-" + hashlib.sha256(version().encode()).hexdigest()[:24]
    folder = cache_folder(name, lambda made: write_json(made / "facts.json", read_facts()))
    return [(name, line) for name, line in read_json(folder / "facts.json")]


def read_facts() -> list[tuple[str, str]]:
    """Names and first docstring lines of 40 functions, chosen by a hash of the name."""
    from sanbu.data.builtin.stdlib_docs import docstrings

    found: dict[str, str] = {}
    for text in docstrings():
        head, _, body = text.partition("\n\n")
        name, line = head.partition("(")[0], body.split("\n")[0].strip()
        if re.fullmatch(r"[a-z]+\.[a-z]+", name) and "(" in head and 15 <= len(line) <= 48 and line.endswith("."):
            found.setdefault(name, line)
    return sorted(found.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())[:40]


TASKS: tuple[Callable[[Draws], Question], ...] = (
    addition,
    subtraction,
    counting,
    maximum,
    repeating,
    reversing,
    sorting,
    item,
    documentation,
    keywords,
)
