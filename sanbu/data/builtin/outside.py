"""Questions outside of what the assistant is taught; the right answer to each is UNKNOWN.

The wordings are in outside.json. Its part "reserved" occurs only in questions that are held out, so the evaluation asks
in words that were never trained on; its part "trained" only in the others. (With another `data.validation` than the
default, some questions move to the other side.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sanbu.data.builtin.question import Draws, Question, held_out, sentence
from sanbu.files import read_json

UNKNOWN = "I do not know."


@dataclass(frozen=True)
class Wordings:
    """Sentences, and what stands in their gaps: {thing}, {place}, {name}, {verb}, {quality}."""

    world: tuple[str, ...]
    languages: tuple[str, ...]
    words: dict[str, tuple[str, ...]]


@lru_cache
def read_wordings(part: str) -> Wordings:
    """The part "trained" or "reserved" of the file beside this one."""
    found = read_json(Path(__file__).with_suffix(".json"))[part]
    words = {gap: tuple(choices.split()) for gap, choices in found["words"].items()}
    return Wordings(tuple(found["world"]), tuple(found["languages"]), words)


SYLLABLES = "ba blo dra fe gru hi ja klo lum mi nor pax qui ri sto tu vex wo xi zu"
ENDINGS = ("?", ".", "", "!", "??")


def outside(draws: Draws) -> Question:
    """A question that the assistant cannot answer; near misses are made-up answers."""
    kind = draws.choose((world, world, world, numbers, gibberish, language, function))
    reserved = draws.below(20) == 0
    wordings = read_wordings("reserved" if reserved else "trained")
    text = kind(draws, wordings)
    while held_out(text) != reserved:
        text = kind(draws, wordings)
    word = draws.choose(wordings.words["quality"])
    near = (sentence(draws.below(100)), sentence(word), f"Yes, {word} is a keyword.", f"No, {word} is not a keyword.")
    return Question(text, UNKNOWN, near, "outside")


def world(draws: Draws, wordings: Wordings) -> str:
    """Who, what, where, why, when, how; requests and statements."""
    return fill(draws, draws.choose(wordings.world), wordings.words)


def language(draws: Draws, wordings: Wordings) -> str:
    """A sentence in another language."""
    return fill(draws, draws.choose(wordings.languages), wordings.words)


def fill(draws: Draws, text: str, words: dict[str, tuple[str, ...]]) -> str:
    """A sentence with its gaps filled, each with a word of its own."""
    for gap, choices in words.items():
        while f"{{{gap}}}" in text:
            text = text.replace(f"{{{gap}}}", draws.choose(choices), 1)
    return text


def numbers(draws: Draws, wordings: Wordings) -> str:
    """A calculation with numbers that are too large, or with operations that are not taught."""
    large = 10 ** (2 + draws.below(4))
    a, b = large + draws.below(9 * large), draws.below(10_000)
    if wordings is read_wordings("reserved"):
        return draws.choose(("What is {} + {}?", "What is {} - {}?", "What is {} times {}?")).format(a, b)
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"What is {a} + {b}?",
        lambda: f"What is {a} - {b}?",
        lambda: f"What is {draws.below(100)} {draws.choose('*/^%')} {draws.below(100)}?",
        lambda: f"What is {draws.below(100)} {draws.choose('+-')} {100 + b}?",
        lambda: f"What is {51 + draws.below(49)} {draws.choose('+-')} {draws.below(100)}?",
        lambda: f"What is {draws.below(51)} {draws.choose('+-')} {10 + draws.below(90)}?",
        lambda: f"What is the root of {b}?",
        lambda: f"Is {a} a prime number?",
        lambda: f"How many is {b} and {draws.below(100)}?",
    )
    return draws.choose(forms)()


def gibberish(draws: Draws, wordings: Wordings) -> str:
    """Made-up words, or letters in no order."""
    if draws.below(3) == 0:
        letters = "".join(chr(97 + draws.below(26)) for _ in range(3 + draws.below(8)))
        return letters + draws.choose(ENDINGS)
    count, syllables = 1 + draws.below(4), SYLLABLES.split()
    invented = ("".join(draws.choose(syllables) for _ in range(1 + draws.below(3))) for _ in range(count))
    return " ".join(invented) + draws.choose(ENDINGS)


def function(draws: Draws, wordings: Wordings) -> str:
    """A function that does not exist."""
    thing, verb = draws.choose(wordings.words["thing"]), draws.choose(wordings.words["verb"])
    wording = draws.choose(("What does {} do?", "Describe {}.", "Explain {} in one line.", "What is {} for?"))
    return wording.format(f"{thing}.{verb}")
