"""Long texts cut at sentences, and texts that cannot be spoken refused in one line."""

from __future__ import annotations

import re

from sanbu.codecs.speech.languages import ENGLISH, spoken_text
from sanbu.codecs.speech.symbols import INLINE
from sanbu.codecs.speech.tables import Tables
from sanbu.config import SanbuError

LONGEST_TEXT = 50_000  # characters of one request
LONGEST_PART = 300  # characters of normalised text that are spoken as one piece
WORD = re.compile(rf"(?:{INLINE.pattern}|\S)+")


def parts_of(
    text: str, tables: Tables | None = None, longest: int = LONGEST_PART, language: str = ENGLISH
) -> list[str]:
    """The normalised text in parts of at most `longest` characters; raises SanbuError for a text that has no letter.

    A part ends where a sentence ends; a longer sentence is cut at a space. Only a word longer than `longest` makes a
    longer part.
    """
    if len(text) > LONGEST_TEXT:
        raise SanbuError(f"prompt: given {len(text):,} characters, allowed: at most {LONGEST_TEXT:,}; split the text")
    spoken = spoken_text(text, language, tables)
    if not spoken:
        raise SanbuError(f"prompt: given {text[:40]!r}, which has no letter or number that can be spoken")
    parts: list[str] = []
    sentence: list[str] = []
    for found in WORD.finditer(spoken):
        word = found[0]
        if sentence and len(" ".join(sentence)) + 1 + len(word) > longest:
            parts.append(" ".join(sentence))
            sentence = []
        sentence.append(word)
        if word[-1] in ".!?":
            parts.append(" ".join(sentence))
            sentence = []
    return parts + ([" ".join(sentence)] if sentence else [])
