"""The tables of the text normaliser, which a user can extend, and the lexicon file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sanbu.config import SanbuError

ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "rev": "reverend",
    "gen": "general", "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "gov": "governor",
    "sen": "senator", "rep": "representative", "hon": "honorable", "jr": "junior", "sr": "senior", "esq": "esquire",
    "etc": "et cetera", "vs": "versus", "e.g": "for example", "i.e": "that is", "approx": "approximately",
    "dept": "department", "est": "established", "inc": "incorporated", "ltd": "limited", "co": "company",
    "corp": "corporation", "bros": "brothers", "ave": "avenue", "blvd": "boulevard", "rd": "road", "mt": "mount",
    "ft": "fort", "fig": "figure", "vol": "volume", "ch": "chapter", "pp": "pages", "ed": "editor", "cf": "compare",
}  # fmt: skip
UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "mi": "mile", "ft": "foot", "in": "inch",
    "yd": "yard", "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce",
    "l": "liter", "ml": "milliliter", "s": "second", "sec": "second", "ms": "millisecond", "min": "minute",
    "h": "hour", "hr": "hour", "hrs": "hour", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz",
    "GHz": "gigahertz", "W": "watt", "kW": "kilowatt", "V": "volt", "A": "ampere", "B": "byte", "kB": "kilobyte",
    "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "mph": "mile per hour",
    "km/h": "kilometer per hour", "m/s": "meter per second", "°C": "degree celsius", "°F": "degree fahrenheit",
    "°": "degree", "%": "percent",
}  # fmt: skip
SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "#": "number", "%": "percent", "/": "slash", "°": "degrees",
}  # fmt: skip
NOTHING: Mapping[str, str] = {}
WORDS = frozenset(("NASA", "NATO", "UNESCO", "UNICEF", "AIDS", "OPEC", "LASER", "RADAR", "OK", "PIN"))


@dataclass(frozen=True)
class Tables:
    """What the normaliser looks up.

    abbreviations: without the last dot, in small letters. units: singular, after a number. symbols: one character each.
    words: capitals that are said as a word, not letter by letter. lexicon: word in small letters -> phonemes.
    """

    abbreviations: dict[str, str] = field(default_factory=lambda: dict(ABBREVIATIONS))
    units: dict[str, str] = field(default_factory=lambda: dict(UNITS))
    symbols: dict[str, str] = field(default_factory=lambda: dict(SYMBOLS))
    words: frozenset[str] = WORDS
    lexicon: dict[str, str] = field(default_factory=dict)

    def extend(
        self,
        abbreviations: Mapping[str, str] = NOTHING,
        units: Mapping[str, str] = NOTHING,
        symbols: Mapping[str, str] = NOTHING,
        lexicon: Mapping[str, str] = NOTHING,
        words: Iterable[str] = (),
    ) -> Tables:
        """A copy with more entries: extend(abbreviations={"dist": "district"})."""
        return Tables(
            abbreviations={**self.abbreviations, **abbreviations},
            units={**self.units, **units},
            symbols={**self.symbols, **symbols},
            words=self.words.union(words),
            lexicon={**self.lexicon, **lexicon},
        )


def read_lexicon(path: Path) -> dict[str, str]:
    """A file of lines `word<TAB>phonemes`; empty lines and lines from # are left out. Raises SanbuError, with the line.

    Only the first pronunciation of a word is kept.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SanbuError(f"{path} cannot be read as a lexicon: {getattr(error, 'strerror', None) or error}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, tab, phonemes = line.partition("\t")
        if not tab or not word.strip() or not phonemes.strip():
            raise SanbuError(f"{path}, line {number}: given {line!r}, allowed: a word, a tab, its phonemes")
        found.setdefault(word.strip().lower(), phonemes.strip())
    return found
