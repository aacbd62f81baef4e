"""How many values a JSON body may have, counted before it is parsed.

The parser and the validation hold the interpreter's lock, so they stop all other threads meanwhile. Their time grows
with the number of values, not with the length of the texts.
"""

from __future__ import annotations

from sanbu.serve.errors import APIError

STRINGS = 100_000  # names of members, and texts
VALUES = 300_000  # members of objects and items of lists; OpenAI allows as many tokens in a request of embeddings


def check_counts(text: str) -> None:
    """Raise APIError 413 for JSON with too many values. The scan takes some milliseconds per megabyte."""
    if text.count('"') <= 2 * STRINGS and marks(text) <= VALUES:
        return
    plain = text.replace("\\\\", "").replace('\\"', "")  # quotes that are left begin or end a string
    strings = (plain.count('"') + 1) // 2
    if strings > STRINGS:
        raise APIError(413, f"the request body has {strings:,} names and texts; allowed: {STRINGS:,}")
    values = marks("".join(plain.split('"')[::2]))
    if values > VALUES:
        raise APIError(413, f"the request body has {values:,} values; allowed: {VALUES:,}")


def marks(text: str) -> int:
    """Commas and opening brackets, so many as there are values in lists and objects that are not empty, or more."""
    return sum(text.count(mark) for mark in ",[{")
