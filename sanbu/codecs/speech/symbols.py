"""The symbols that a speech model knows: letters, marks and phonemes (IPA), with their ids."""

from __future__ import annotations

import re

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = " '!,-.:;?"
PHONEMES = (
    "abdefhijklmnoprstuvwxzæçðøŋœɐɑɒɔɕəɚɛɜɝɟɡɣɪɫɬɯɲɹɾʁʃʉʊʋʌʎʏʒʔʰʲθβχᵻˈˌː"
    "ycqäħɓɖɗɘɞɤɥɦɧɨɭɮɰɱɳɴɵɶɸɺɻɽʀʂʄʈʍʐʑʕʙʝʟʷ123456789"
    "\u0303\u0329\u030a\u031d\u031e\u0325\u032a\u032f"  # marks on the symbol before: nasal, syllabic, voiceless ...
)
PADDING = "_"
SYMBOLS = (PADDING, *MARKS, *LETTERS, *("/" + symbol for symbol in PHONEMES))  # a phoneme differs from its letter
IDS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
INLINE = re.compile(r"\[\[([^\[\]]*+)\]\]")


def ids_of(text: str) -> list[int]:
    """The ids of a normalised text; inside [[...]] the symbols are phonemes."""
    found: list[int] = []
    for number, part in enumerate(INLINE.split(text)):
        names = (symbol if symbol in MARKS else "/" + symbol for symbol in part) if number % 2 else iter(part)
        found += [IDS[name] for name in names if name in IDS and name != PADDING]
    return found


def phonemes_of(text: str) -> str:
    """The symbols of an inline part that have ids."""
    return "".join(symbol for symbol in text if symbol in PHONEMES or symbol in MARKS).strip()
