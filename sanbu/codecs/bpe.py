"""Byte-pair encoding by the tokenizers library: trained here, or any tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from sanbu.codecs.kinds import END, RESERVED
from sanbu.codecs.tokenizer import Ids, TokenizerError
from sanbu.files import write_text


def train(documents: Iterable[str], vocabulary: int) -> FileTokenizer:
    """Byte-level BPE on these documents (Sennrich and others, 2016), split as GPT-2 splits; the end is token 0."""
    return trained(documents, vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False), [END])


def train_chat(documents: Iterable[str], vocabulary: int) -> FileTokenizer:
    """The same with each digit alone, which arithmetic needs, and the reserved tokens."""
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return trained(documents, vocabulary, pre_tokenizers.Sequence(split), list(RESERVED))


def trained(documents: Iterable[str], vocabulary: int, split: Any, reserved: list[str]) -> FileTokenizer:
    """Byte-level BPE over pieces of text that no token may cross; reserved tokens have the first ids."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=reserved,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return FileTokenizer(tokenizer, 0, 0)


class FileTokenizer:
    """A tokenizer.json. Text never turns into special tokens: an end written in a document stays text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, end: int | None, start: int | None) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer, self.end, self.start = tokenizer, end, start
        kind = str(json.loads(tokenizer.to_str()).get("decoder"))
        self.exact_pieces = "'ByteLevel'" in kind
        special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        texts: dict[int, str] = {i: token for token, i in tokenizer.get_vocab(with_added_tokens=True).items()}
        piece = byte_level_piece if self.exact_pieces else marked_piece
        self.pieces = [b"" if i in special or i not in texts else piece(texts[i]) for i in range(max(texts) + 1)]

    @classmethod
    def load(cls, path: Path, end: int | None, start: int | None) -> FileTokenizer:
        """Read a tokenizer.json. Raises TokenizerError in one line when it is not one."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), end, start)
        except Exception as error:  # the library raises bare Exception for files it cannot read
            raise TokenizerError(f"{path} is not a tokenizer.json: {str(error).splitlines()[0]}") from None

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def special(self, name: str) -> int | None:
        """The id of a token that no text can write."""
        return self.tokenizer.token_to_id(name)

    def spelled(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text in which special tokens count, as a template writes it, and the characters each stands for."""
        self.tokenizer.encode_special_tokens = False
        try:
            encoding = self.tokenizer.encode(text, add_special_tokens=False)
        finally:
            self.tokenizer.encode_special_tokens = True
        return encoding.ids, encoding.offsets

    def save(self, folder: Path) -> None:
        write_text(folder / "tokenizer.json", self.tokenizer.to_str(pretty=True))


def byte_of_character() -> dict[str, int]:
    """GPT-2's bijection: printable bytes are themselves, the others are shifted past 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    return {chr(value): value for value in plain} | {chr(256 + index): value for index, value in enumerate(others)}


BYTES = byte_of_character()


def byte_level_piece(token: str) -> bytes:
    """The bytes of a token in GPT-2's byte alphabet; added tokens may hold other characters."""
    if all(character in BYTES for character in token):
        return bytes(BYTES[character] for character in token)
    return token.encode("utf-8")


def marked_piece(token: str) -> bytes:
    """The bytes of a token that marks spaces: a lower bar (SentencePiece), </w> (GPT-1), <0x0A> (byte fallback)."""
    if token.startswith("<0x") and token.endswith(">") and len(token) == 6:
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").replace("</w>", " ").encode("utf-8")


def bytes_as_file() -> FileTokenizer:
    """The byte tokenizer as a tokenizer.json: byte-level BPE without a merge, the same ids."""
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=BYTES, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return FileTokenizer(tokenizer, 256, 256)
