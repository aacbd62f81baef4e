"""A hash as a number in [0, 1): what lies below `data.validation` is held out, whatever the order of the data."""

from __future__ import annotations

import hashlib

from sanbu.noise import key, mix_int

BITS = 53  # that a float holds exactly


def chance(content: bytes) -> float:
    """The number of a content."""
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return unit(mix_int(int.from_bytes(digest, "little")))


def chance_of_name(name: str) -> float:
    """The number of a name."""
    return unit(key(name))


def unit(whole: int) -> float:
    """The last 53 bits of a whole number, as a fraction."""
    return (whole & ((1 << BITS) - 1)) / (1 << BITS)
