"""Texts of any language as they are spoken, and their letters as a to z.

English has rules of its own (`written`). In other languages numbers become words by num2words, and letters stay as they
are: espeak-ng reads them, and `written_letters` writes them with a to z.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from sanbu.codecs.speech.symbols import LETTERS, MARKS
from sanbu.codecs.speech.tables import Tables
from sanbu.codecs.speech.written import QUOTES, joined_parts, normalise, plain_letters
from sanbu.config import SanbuError, nearest

ENGLISH = "en-us"
LATIN = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "oe", "ð": "d", "þ": "th", "ł": "l",
         "đ": "d", "ı": "i"}  # fmt: skip
YEARS = range(1100, 2100)  # numbers of four digits that are read as years


def spoken_text(text: str, language: str = ENGLISH, tables: Tables | None = None) -> str:
    """The text as it is spoken, in lower case, with phonemes inside [[...]]; empty if nothing in it can be spoken.

    language: a language of espeak-ng, such as de or pt-br. tables are for English. Never raises.
    """
    if is_english(language):
        return normalise(text, tables)
    return joined_parts(text, lambda part: words(part, language))


def written_letters(text: str, language: str = ENGLISH) -> str:
    """A spoken text with the letters a to z: ö becomes oe, é becomes e; letters of other scripts are left out."""
    return text if is_english(language) else joined_parts(text, latin_letters)


def latin_letters(text: str) -> str:
    """The letters a to z and the marks of a text without inline phonemes."""
    changed = plain_letters("".join(LATIN.get(symbol, symbol) for symbol in text))
    return "".join(symbol if symbol in LETTERS or symbol in MARKS else " " for symbol in changed)


def check_language(language: str) -> None:
    """Raise SanbuError for a language that espeak-ng does not know, where it is installed."""
    found = find_spec("espeakng_loader")
    place = Path(found.origin).parent / "espeak-ng-data" / "lang" if found and found.origin else None
    known = sorted(file.name.lower() for file in place.glob("*/*")) if place else []
    if known and language not in known:
        some = "the languages of espeak-ng, such as en-us, de, fr, pt-br"
        raise SanbuError(f"language: given {language!r}, allowed: {some}{nearest(language, known)}")


def is_english(language: str) -> bool:
    """Whether a language is English of any country."""
    return language.split("-")[0] == "en"


def words(text: str, language: str) -> str:
    """The letters and marks of a text, with its numbers as words."""
    text = unicodedata.normalize("NFKC", text.translate(QUOTES)).translate(QUOTES)
    say = number_reader(language)
    text = re.sub(r"\d+", lambda found: f" {say(int(found[0]))} ", text).lower()
    return "".join(symbol if symbol.isalnum() or combines(symbol) or symbol in MARKS else " " for symbol in text)


def combines(symbol: str) -> bool:
    """Whether a symbol belongs to the letter before it."""
    return unicodedata.category(symbol).startswith("M")


def number_reader(language: str) -> Callable[[int], str]:
    """What says a number in a language; digits where num2words is missing or does not know the language."""
    try:
        from num2words import num2words

        name = language.replace("-", "_")
        num2words(1, lang=name)
    except (ImportError, NotImplementedError):
        return str

    def say(number: int) -> str:
        try:
            return str(num2words(number, lang=name, to="year" if number in YEARS else "cardinal"))
        except (NotImplementedError, OverflowError, ValueError, AttributeError):
            return str(number)

    return say
