"""Text normalisation for English: `normalise` rewrites what is not a word as the words that are spoken.

Rules run in the order of RULES, because a date is also a number. The result has letters, spaces and the marks
of `symbols`, and phonemes inside [[...]].
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from sanbu.codecs.speech.number_words import cardinal, digits, fraction, ordinal, plural, spoken_number, year
from sanbu.codecs.speech.symbols import INLINE, LETTERS, MARKS, phonemes_of
from sanbu.codecs.speech.tables import Tables

MONTHS = [
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
]  # fmt: skip
MONTH = "|".join(f"{name}|{name[:3]}\\.?" for name in MONTHS) + "|sept\\.?"
CURRENCIES = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "¥": ("yen", "sen")}
UNCHANGED = {"yen", "sen", "hertz", "percent", "megahertz", "kilohertz", "gigahertz"}
QUOTES = str.maketrans({"’": "'", "‘": "'", "–": "-", "—": ", ", "…": ".", "−": "-", "⁄": "/"})
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def many(count: str, unit: str) -> str:
    """The unit, in the plural unless the written count is 1; only the first word changes: miles per hour."""
    first, gap, rest = unit.partition(" ")
    if count == "1" or first in UNCHANGED:
        return unit
    changed = {"foot": "feet", "penny": "pence"}.get(first) or plural(first)
    return changed + gap + rest


def money(found: re.Match[str]) -> str:
    """$5.50 -> five dollars and fifty cents; $2.5 million -> two point five million dollars."""
    large, small = CURRENCIES[found[1]]
    amount, scale = found[2].replace(",", ""), found[3]
    if scale:
        return f"{spoken_number(amount)} {scale.lower()} {many('2', large)}"
    whole, _, part = amount.partition(".")
    if not part or len(part) > 2:
        return f"{spoken_number(amount)} {many(amount, large)}"
    cents = int(part.ljust(2, "0"))
    said = f"{spoken_number(whole)} {many(whole, large)}"
    coins = f"{cardinal(cents)} {many(str(cents), small)}"
    if not cents:
        return said
    return coins if not whole.strip("0") else f"{said} and {coins}"


def month_of(text: str) -> str:
    """The full name of a month."""
    return next(name for name in MONTHS if name.startswith(text.lower().rstrip(".")[:3]))


def date(day: str, month: str, of_year: str | None) -> str:
    """march fifth, twenty twenty."""
    return f"{month} {ordinal(int(day))}" + (f", {year(int(of_year))}" if of_year else "")


def numeric_date(day: str, month: str, of_year: str, whole: str) -> str:
    """A date of numbers; unchanged if there is no such month or day."""
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return whole
    return date(day, MONTHS[int(month) - 1], of_year)


def clock(found: re.Match[str]) -> str:
    """3:05 pm -> three oh five p m; 3:00 -> three o'clock."""
    hour, minute, half = int(found[1]), int(found[2]), (found[3] or "").lower().replace(".", "")
    if hour > 24 or minute > 59:
        return f"{cardinal(hour)} {cardinal(minute)}"
    said = cardinal(hour)
    if minute:
        said += (" oh " if minute < 10 else " ") + cardinal(minute)
    elif not half:
        said += " o'clock"
    return said + (f" {half[0]} {half[1]}" if half else "")


def plain_number(found: re.Match[str]) -> str:
    """A number by itself; four digits from 1100 to 2099 are a year."""
    text = found[0]
    if re.fullmatch(r"\d{4}", text) and 1100 <= int(text) <= 2099:
        return f" {year(int(text))} "
    return f" {spoken_number(text)} "


def decade(found: re.Match[str]) -> str:
    """1990s -> nineteen nineties."""
    return plural(year(int(found[1])))


RULES: tuple[Rule, ...] = (
    (re.compile(rf"([$€£¥])\s?({NUMBER})(?:\s(thousand|million|billion|trillion)\b)?", re.I), money),
    (re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b"), lambda m: numeric_date(m[3], m[2], m[1], m[0])),
    (re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b"), lambda m: numeric_date(m[2], m[1], m[3], m[0])),
    (
        re.compile(rf"\b({MONTH})\s(\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s(\d{{4}})\b)?", re.I),
        lambda m: date(m[2], month_of(m[1]), m[3]),
    ),
    (
        re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\s({MONTH})(?![a-z])(?:,?\s(\d{{4}})\b)?", re.I),
        lambda m: date(m[1], month_of(m[2]), m[3]),
    ),
    (re.compile(r"\b(\d{1,2}):(\d\d)(?:\s?([ap]m\b|[ap]\.m\b\.?))?", re.I), clock),
    (
        re.compile(r"\b(\d{1,2})()\s?([ap]m\b|[ap]\.m\b\.?)", re.I),
        lambda m: f"{cardinal(int(m[1]))} {m[3][0]} m".lower(),
    ),
    (re.compile(r"\b\d{3}-(?:\d{3}-)?\d{4}\b"), lambda m: ", ".join(digits(part) for part in m[0].split("-"))),
    (re.compile(r"\b(\d{3}0)s\b"), decade),
    (re.compile(r"\b(\d+)(?:st|nd|rd|th)\b", re.I), lambda m: ordinal(int(m[1])) if len(m[1]) < 16 else digits(m[1])),
    (re.compile(r"\b(\d{1,9})/(\d{1,9})\b"), lambda m: fraction(int(m[1]), int(m[2]))),
    (re.compile(rf"(?<=\d)\s?-\s?(?={NUMBER})"), lambda m: " to "),
    (re.compile(r"(?<![\w.])-(?=\d)"), lambda m: "minus "),
    (re.compile(NUMBER), plain_number),
)


def units(text: str, tables: Tables) -> str:
    """5 km -> 5 kilometers; numbers stay as they are."""
    names = "|".join(re.escape(name) for name in sorted(tables.units, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w$€£¥.,])(?!\d{{3}}0s\b)({NUMBER})\s?({names})(?![\w/]|\.\w)")
    return pattern.sub(lambda m: f"{m[1]} {many(m[1], tables.units[m[2]])}", text)


def abbreviations(text: str, tables: Tables) -> str:
    """Dr. Smith -> doctor Smith; St. is saint before a capital and street elsewhere; No. 5 is number 5."""
    text = re.sub(r"\bSt\.(?=\s[A-Z])", "saint", text)
    text = re.sub(r"\bSt\.", "street", text)
    text = re.sub(r"\bNo\.(?=\s?\d)", "number", text)
    names = "|".join(re.escape(name) for name in sorted(tables.abbreviations, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.])({names})\.(?!\w)", re.I)
    return pattern.sub(lambda m: tables.abbreviations[m[1].lower()], text)


def initials(text: str, tables: Tables) -> str:
    """U.S.A. -> u s a; FBI -> f b i, unless all of the text is in capitals; NASA is a word."""
    text = re.sub(
        r"(?<![.\w])(?:[A-Za-z]\.){2,}+(?=\s+[a-z]|\W|$)", lambda m: " ".join(m[0].replace(".", "").lower()), text
    )
    text = re.sub(r"(?<=\b[A-Z])\.(?=\s[A-Z])", "", text)
    if len(text.split()) > 1 and text.upper() == text:
        return text
    capitals = re.compile(r"(?<![\w'])[A-Z]{2,5}(?![\w'])")
    return capitals.sub(lambda m: m[0] if m[0] in tables.words else " ".join(m[0].lower()), text)


def plain_letters(text: str) -> str:
    """Letters without accents and one form of each symbol."""
    text = unicodedata.normalize("NFKC", text.translate(QUOTES)).translate(QUOTES)
    return "".join(symbol for symbol in unicodedata.normalize("NFKD", text) if not unicodedata.combining(symbol))


def written_part(text: str, tables: Tables) -> str:
    """The words of a text without inline phonemes."""
    text = plain_letters(text)
    text = re.sub(r"\d", lambda m: str(unicodedata.digit(m[0])), text)
    text = initials(abbreviations(units(text, tables), tables), tables)
    for pattern, said in RULES:
        text = pattern.sub(said, text)
    text = re.sub(r"(?<=[A-Za-z])\.(?=[A-Za-z])", " dot ", text)
    text = "".join(f" {tables.symbols[symbol]} " if symbol in tables.symbols else symbol for symbol in text).lower()
    text = "".join(symbol if symbol in LETTERS or symbol in MARKS else " " for symbol in text)
    if tables.lexicon:
        text = re.sub(r"[a-z']+", lambda m: pronounced(m[0], tables), text)
    return text


def pronounced(word: str, tables: Tables) -> str:
    """The phonemes of a word in the lexicon, inline; another word unchanged."""
    phonemes = phonemes_of(tables.lexicon.get(word, ""))
    return f"[[{phonemes}]]" if phonemes else word


def normalise(text: str, tables: Tables | None = None) -> str:
    """The text as it is spoken; empty if nothing in it can be. Never raises.

    The result has the letters a to z, the marks of `symbols.MARKS`, and phonemes inside [[...]].
    """
    known = tables or Tables()
    return joined_parts(text, lambda part: written_part(part, known))


def joined_parts(text: str, rewrite: Callable[[str], str]) -> str:
    """The text with what stands outside [[...]] rewritten, without needless spaces; empty without letter or digit."""
    parts: list[str] = []
    for number, part in enumerate(INLINE.split(text)):
        phonemes = phonemes_of(part) if number % 2 else ""
        parts.append((f"[[{phonemes}]]" if phonemes else "") if number % 2 else rewrite(part))
    joined = re.sub(r"\s+", " ", "".join(parts))
    joined = re.sub(r"\s+(?=[,.!?;:])", "", joined).strip()
    return joined if any(symbol.isalnum() for symbol in joined) else ""
