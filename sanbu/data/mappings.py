"""Random mappings of letters to digits, to be learnt in context from the examples in the row.

    k3 q7 b3 q7 k...      letters, each followed by its digit; every letter occurs once before any occurs again

The idea is that of Garg and others, "What can transformers learn in-context?", 2022. Only digits have a loss. The
digit of the first example of a letter cannot be predicted; the digits of its later examples can.
"""

from __future__ import annotations

import hashlib
import math
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.codec import Codec
from sanbu.codecs.text import TextCodec
from sanbu.codecs.tokenizer import CharacterTokenizer
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.noise import Together, key
from sanbu.space import IGNORED, Batch, Space

LETTERS, DIGITS = string.ascii_lowercase, string.digits
ALPHABET = LETTERS + DIGITS
HELD_OUT = 1024


class Mappings(DataConfig):
    """Random mappings of letters to digits, to be learnt in context from the examples in the row."""

    kind: Literal["mappings"] = "mappings"
    letters: int = Field(4, ge=1, le=26, description="letters per mapping")
    shots: int = Field(16, ge=1, description="examples before the last letter")

    def space(self) -> Space:
        return Space((2 * self.shots + 1,), 37, 36)

    def example(self, rows: int) -> Batch:
        return {name: no_tokens(rows, 2 * self.shots + 1) for name in ("tokens", "targets")}

    def build(self) -> Data:
        return MappingRows(self)

    def codec(self, folder: Path) -> Codec:
        return TextCodec(CharacterTokenizer(ALPHABET))


class MappingRows:
    """Rows of letters and digits; mappings are held out by a hash of their content."""

    rows, held_out_rows = 1 << 40, HELD_OUT

    def __init__(self, config: Mappings) -> None:
        self.config = config
        self.codec = TextCodec(CharacterTokenizer(ALPHABET))
        self.fingerprint = f"mappings-1-{config.letters}-{config.shots}"

    def describe(self) -> str:
        """The sizes of mapping and row."""
        return f"mappings of {self.config.letters} letters to digits, {self.config.shots} examples per row, unlimited"

    def batch(self, start: int, size: int) -> dict[str, Tensor]:
        """Rows of mappings that are not held out."""
        return self._rows(range(start, start + size), held=False)

    def held_out(self, start: int, size: int) -> dict[str, Tensor]:
        """Rows of held-out mappings."""
        return self._rows(range(start, min(start + size, HELD_OUT)), held=True)

    def _rows(self, numbers: Iterable[int], held: bool) -> dict[str, Tensor]:
        rows = torch.stack([self._row(number, held) for number in numbers])
        tokens, targets = rows[:, :-1], rows[:, 1:]
        return {"tokens": tokens, "targets": targets.where(targets >= len(LETTERS), IGNORED)}

    def _row(self, number: int, held: bool) -> Tensor:
        attempt = 0
        while True:
            draws = Together(key("mapping", int(held), number, attempt))
            letters = draws.permutation(len(LETTERS))[: self.config.letters]
            digits = draws.integers(len(DIGITS), self.config.letters) + len(LETTERS)
            if is_held_out(letters, digits) == held:
                break
            attempt += 1
        count = math.ceil((self.config.shots + 1) / self.config.letters)
        rounds = [draws.permutation(self.config.letters) for _ in range(count)]
        shown = torch.cat(rounds)[: self.config.shots + 1]
        return torch.stack((letters[shown], digits[shown]), 1).flatten()


def is_held_out(letters: Tensor, digits: Tensor) -> bool:
    """Whether a mapping is held out: one in sixteen, by a hash of its pairs."""
    pairs = sorted(zip(letters.tolist(), digits.tolist(), strict=True))
    return hashlib.blake2b(repr(pairs).encode(), digest_size=1).digest()[0] < 16
