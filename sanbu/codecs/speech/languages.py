"""Texts of any language as they are spoken, and their letters as a to z.

English has rules of its own (`written`). In other languages numbers become words by num2words, and letters stay as they
are: espeak-ng reads them, and `written_letters` writes them with a to z.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from sanbu.codecs.speech.symbols import LETTERS, MARKS
from sanbu.codecs.speech.tables import Tables
from sanbu.codecs.speech.written import QUOTES, joined_parts, normalise, plain_letters

ENGLISH = "en-us"
LATIN = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "oe", "ð": "d", "þ": "th", "ł": "l",
         "đ": "d", "ı": "i"}  # fmt: skip
OTHER_MARKS = str.maketrans("。、，？！；：،؟؛।", ".,,?!;:,?;.")
NUMBER = re.compile(r"\d{1,3}(?:([.,\u00a0\u202f ])\d{3}(?!\d))(?:\1\d{3}(?!\d))*|\d+[.,]\d+(?![.,]?\d)|\d+")
CLOCK = re.compile(r"(?<=\d):(?=\d)")
YEARS, YEAR_LANGUAGES = range(1100, 2000), ("da", "de", "nb", "nl")  # numbers that are read as years, and where
LONGEST_NUMBER = 15  # digits; of a longer one each is read
OTHER_NAMES = {"nb": "no"}  # of languages, by num2words


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


def is_english(language: str) -> bool:
    """Whether a language is English of any country."""
    return language.lower().split("-")[0] == "en"


def words(text: str, language: str) -> str:
    """The letters and marks of a text, with its numbers as words."""
    text = unicodedata.normalize("NFKC", text.translate(QUOTES).translate(OTHER_MARKS)).translate(QUOTES)
    text = re.sub(r"\d", lambda found: str(unicodedata.digit(found[0])), text)
    say = number_reader(language)
    text = NUMBER.sub(lambda found: " " + spoken_number(found[0], found[1], say), CLOCK.sub(" ", text)).lower()
    return "".join(symbol if symbol.isalnum() or combines(symbol) or symbol in MARKS else " " for symbol in text)


def combines(symbol: str) -> bool:
    """Whether a symbol belongs to the letter before it."""
    return unicodedata.category(symbol).startswith("M")


def spoken_number(written: str, separator: str | None, say: Callable[[str], str]) -> str:
    """A number in words; one that begins with 0 is read digit by digit. separator: between groups of three digits."""
    whole = written.replace(separator, "") if separator else written
    if len(whole) > LONGEST_NUMBER or (whole.isdecimal() and whole[0] == "0"):
        return " ".join(say(digit) if digit.isdecimal() else "," for digit in whole)
    return say(whole.replace(",", "."))


@lru_cache(maxsize=32)
def number_reader(language: str) -> Callable[[str], str]:
    """What says a number in a language; digits where num2words is missing or does not know the language."""
    try:
        from num2words import num2words
    except ImportError:
        return str
    name = OTHER_NAMES.get(language, language).replace("-", "_")

    def say(number: str) -> str:
        year = number.isdecimal() and int(number) in YEARS and language in YEAR_LANGUAGES
        for kind in ("year", "cardinal") if year else ("cardinal",):
            try:
                return str(num2words(number, lang=name, to=kind))
            except Exception:  # converters raise many kinds of error for what they cannot say
                continue
        return number

    return say
