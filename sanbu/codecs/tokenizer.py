"""Tokenizers: text to tokens and back. The bytes of each token are known, so text can be streamed exactly."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from sanbu.config import Choice, SanbuError
from sanbu.files import write_json

END = "<|endoftext|>"
START_TOKENS = ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]")
END_TOKENS = (END, "</s>", "<|end_of_text|>", "<eos>", "[SEP]")
PAD, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"
DELIMITER, EXTRACT = "<|delimiter|>", "<|extract|>"
RESERVED = (END, PAD, SYSTEM, USER, ASSISTANT, DELIMITER, EXTRACT)

Ids = np.ndarray


class TokenizerError(SanbuError):
    """Text that a tokenizer cannot encode."""


class Tokenizer(Protocol):
    """pieces[i]: the UTF-8 bytes of token i, which may be part of a character; special tokens are empty."""

    pieces: list[bytes]
    added: tuple[bytes, bytes]  # what the pieces of a text have before and after it: a space where words begin with one

    @property
    def end(self) -> int | None:
        """The id of the end token, or None."""

    @property
    def start(self) -> int | None:
        """The id with which a document begins, or None; most models use the end token, LLaMA has a start token."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, without start and end token."""

    def may_cut(self, text: str, place: int) -> bool:
        """Whether the parts before and after that place, encoded one by one, have the tokens of the whole text."""

    def special(self, name: str) -> int | None:
        """The id of a special token such as <|user|>, or None."""

    def save(self, folder: Path) -> None:
        """Write the files that `TokenizerConfig.load` reads into a run folder."""


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of one text."""
    return tokenizer.encode_batch([text])[0].tolist()


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of the ids of a whole text; invalid UTF-8 becomes U+FFFD."""
    before, after = tokenizer.added
    return bytes_of(tokenizer.pieces, ids).removeprefix(before).removesuffix(after).decode("utf-8", "replace")


def bytes_of(pieces: Sequence[bytes], ids: Sequence[int]) -> bytes:
    """The bytes of ids; ids beyond the vocabulary are empty."""
    return b"".join(pieces[i] for i in ids if i < len(pieces))


def piece_lengths(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """The number of bytes of each token, int64 [V]; 0 for ids beyond the vocabulary of the tokenizer."""
    lengths = np.zeros(vocabulary, dtype=np.int64)
    lengths[: len(tokenizer.pieces)] = [len(piece) for piece in tokenizer.pieces[:vocabulary]]
    return lengths


class TextBytes:
    """How many bytes of text each token of a stream of documents stands for, without what the tokenizer adds to them.

    The stream is `end d1 end d2 end ...`. lengths_V: of each piece. first_V: where it begins a document. extra_V: how
    many of its last bytes the tokenizer added where it ends one; they are taken off the end token after it.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        before, after = tokenizer.added
        pieces = tokenizer.pieces[:vocabulary]
        self.end, self.lengths_V = tokenizer.end, piece_lengths(tokenizer, vocabulary)
        self.first_V, self.extra_V = self.lengths_V.copy(), np.zeros_like(self.lengths_V)
        self.first_V[: len(pieces)] = [len(piece.removeprefix(before)) for piece in pieces]
        ended = [piece.endswith(after) for piece in pieces]
        self.extra_V[: len(pieces)] = len(after) * np.array(ended)

    def __call__(self, before: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The bytes of ids, each with the id before it; int64 of the same shape."""
        begins, ends = before == self.end, ids == self.end
        size = np.where(begins, self.first_V[ids], self.lengths_V[ids])
        return np.where(ends & ~begins, -self.extra_V[before], size)


def padding_of(tokenizer: Tokenizer) -> int:
    """The padding token, or the end token; padding targets are masked by position, not by id."""
    special = tokenizer.special(PAD)
    return special if special is not None else tokenizer.end or 0


class TokenizerConfig(Choice):
    """A tokenizer."""

    table: ClassVar[str] = "sanbu.codecs:TOKENIZERS"

    def size(self) -> int:
        """The vocabulary size, known without the data."""
        raise NotImplementedError

    def end(self) -> int | None:
        """The id of the end token, or None."""
        raise NotImplementedError

    def other_ends(self) -> tuple[int, ...]:
        """Further ids at which a sample ends, as instructed models have them."""
        return ()

    def build(self, documents: Iterable[str]) -> Tokenizer:
        """The tokenizer, trained on the documents if it is a kind that is trained."""
        raise NotImplementedError

    def load(self, folder: Path) -> Tokenizer:
        """The tokenizer that was saved in a run folder."""
        return self.build(())

    def fingerprint(self) -> str:
        """A hash of the file of the tokenizer; empty without a file."""
        return ""

    def resolve(self) -> TokenizerConfig:
        """This config with every `auto` replaced by its value in the file."""
        return self


class Byte(TokenizerConfig):
    """One token per byte of UTF-8."""

    kind: Literal["byte"] = "byte"

    def size(self) -> int:
        return 257

    def end(self) -> int:
        return 256

    def build(self, documents: Iterable[str]) -> Tokenizer:
        return ByteTokenizer()


class ByteTokenizer:
    """256 bytes and the end token."""

    pieces: list[bytes] = [bytes([value]) for value in range(256)] + [b""]
    added = (b"", b"")
    end = start = 256

    def may_cut(self, text: str, place: int) -> bool:
        return True

    def special(self, name: str) -> int | None:
        return None

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) for text in texts]

    def save(self, folder: Path) -> None:
        write_json(folder / "tokenizer.sanbu.json", {"kind": "byte"})


class Characters(TokenizerConfig):
    """One token per character of a given alphabet; other characters are refused."""

    kind: Literal["characters"] = "characters"
    alphabet: str = Field("\n" + string.printable[:95], min_length=1, description="all characters, each once")

    def size(self) -> int:
        return len(self.alphabet) + 1

    def end(self) -> int:
        return len(self.alphabet)

    def build(self, documents: Iterable[str]) -> Tokenizer:
        return CharacterTokenizer(self.alphabet)


class CharacterTokenizer:
    """The characters of an alphabet, and the end token. Other characters raise TokenizerError."""

    added = (b"", b"")

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self.pieces = [character.encode("utf-8") for character in alphabet] + [b""]
        self.end = self.start = len(alphabet)
        codes = [ord(character) for character in alphabet]
        self.table = np.full(max(codes) + 2, -1, dtype=np.int64)
        self.table[codes] = np.arange(len(alphabet))

    def may_cut(self, text: str, place: int) -> bool:
        return True

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
                "add it to data.tokenizer.alphabet, or use data.tokenizer=byte"
            )
        return ids

    def save(self, folder: Path) -> None:
        write_json(folder / "tokenizer.sanbu.json", {"kind": "characters", "alphabet": self.alphabet})
