"""The signs that a speech model knows: letters, marks and phonemes (IPA), with their ids."""

from __future__ import annotations

import re

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = " '!,-.:;?"
PHONEMES = "abdefhijklmnoprstuvwxzæçðøŋœɐɑɒɔɕəɚɛɜɝɟɡɣɪɫɬɯɲɹɾʁʃʉʊʋʌʎʏʒʔʰʲθβχᵻˈˌː"
PADDING = "_"
SYMBOLS = (PADDING, *MARKS, *LETTERS, *("/" + sign for sign in PHONEMES))  # a phoneme differs from its letter
IDS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
INLINE = re.compile(r"\[\[([^\[\]]*+)\]\]")


def ids_of(text: str) -> list[int]:
    """The ids of a normalised text; inside [[...]] the signs are phonemes."""
    found: list[int] = []
    for number, part in enumerate(INLINE.split(text)):
        names = (sign if sign in MARKS else "/" + sign for sign in part) if number % 2 else iter(part)
        found += [IDS[name] for name in names if name in IDS and name != PADDING]
    return found


def phonemes_of(text: str) -> str:
    """The signs of an inline part that have ids."""
    return "".join(sign for sign in text if sign in PHONEMES or sign in MARKS).strip()
