"""Text to tokens and back. A token stands for known bytes, so that text can be streamed and counted exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sanbu.config import SanbuError
from sanbu.files import write_json

Ids = np.ndarray


class TokenizerError(SanbuError):
    """Text that a tokenizer cannot take."""


class Tokenizer(Protocol):
    """pieces[i] is the UTF-8 that token i stands for (a token may hold a part of a character; the end holds nothing)."""

    pieces: list[bytes]
    exact_pieces: bool  # encode(a) + encode(b) == encode(a + b) where a ends a line and b begins one

    @property
    def end(self) -> int | None:
        """The id that ends a document, if there is one."""

    @property
    def start(self) -> int | None:
        """The id a document begins with: most models use its end, LLaMA has its own."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, without the end."""

    def special(self, name: str) -> int | None:
        """The id of a token that no text can write, such as <|user|>, if there is one."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs into a run folder."""


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of one text."""
    return tokenizer.encode_batch([text])[0].tolist()


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids; bytes that are no UTF-8 become U+FFFD."""
    return spelling(tokenizer.pieces, ids).decode("utf-8", "replace")


def spelling(pieces: Sequence[bytes], ids: Sequence[int]) -> bytes:
    """The bytes of ids; a model may know more ids than its tokenizer, and those stand for nothing."""
    return b"".join(pieces[i] for i in ids if i < len(pieces))


def piece_lengths(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """Bytes that each token stands for, int64; ids beyond the tokenizer's own stand for none."""
    lengths = np.zeros(vocabulary, dtype=np.int64)
    lengths[: len(tokenizer.pieces)] = [len(piece) for piece in tokenizer.pieces[:vocabulary]]
    return lengths


class ByteTokenizer:
    """256 bytes and the end."""

    pieces: list[bytes] = [bytes([value]) for value in range(256)] + [b""]
    end = start = 256
    exact_pieces = True

    def special(self, name: str) -> int | None:
        return None

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) for text in texts]

    def save(self, folder: Path) -> None:
        write_json(folder / "tokenizer.sanbu.json", {"kind": "byte"})


class CharacterTokenizer:
    """A stated alphabet and the end. Raises TokenizerError for any other character."""

    exact_pieces = True

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self.pieces = [character.encode("utf-8") for character in alphabet] + [b""]
        self.end = self.start = len(alphabet)
        codes = [ord(character) for character in alphabet]
        self.table = np.full(max(codes) + 2, -1, dtype=np.int64)
        self.table[codes] = np.arange(len(alphabet))

    def special(self, name: str) -> int | None:
        return None

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Ids:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        ids = self.table[np.minimum(codes, len(self.table) - 1)]
        if (ids < 0).any():
            strange = text[int((ids < 0).argmax())]
            raise TokenizerError(
                f"the character {strange!r} is not in the alphabet of {len(self.alphabet)}; "
                "add it to data.tokenizer.alphabet, or take data.tokenizer=byte"
            )
        return ids

    def save(self, folder: Path) -> None:
        write_json(folder / "tokenizer.sanbu.json", {"kind": "characters", "alphabet": self.alphabet})
