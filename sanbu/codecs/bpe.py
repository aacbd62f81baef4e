"""Byte-pair encoding (BPE): trained on the data, or read from any tokenizer.json, with the tokenizers library.

Training merges the most frequent pair of tokens until the vocabulary is full. Sennrich and others, "Neural machine
translation of rare words with subword units", 2016; on bytes: Radford and others, 2019.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from pydantic import Field
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from sanbu.codecs.foreign import check_foreign
from sanbu.codecs.tokenizer import (
    END,
    END_TOKENS,
    RESERVED,
    START_TOKENS,
    Ids,
    Tokenizer,
    TokenizerConfig,
    TokenizerError,
    bytes_of,
)
from sanbu.config import ConfigError, Positive, SanbuError, added
from sanbu.files import fingerprint, write_text
from sanbu.progress import start

MOST = 10**7  # ids of a vocabulary
LONG = Regex(r"[\s\S]{4096}")
LARGE = 1 << 18  # characters from which encoding takes long enough to hear interrupts meanwhile
NEAR = (61, 128, 199)  # characters before a cut that are looked at: several sizes, in case a rule counts characters


class BPE(TokenizerConfig):
    """Byte-level byte-pair encoding, trained on the data (Sennrich and others, 2016; Radford and others, 2019)."""

    kind: Literal["bpe"] = "bpe"
    vocabulary: int = Field(
        4096, ge=258, le=MOST, description="vocabulary size, including 256 bytes and the end of text"
    )

    def size(self) -> int:
        return self.vocabulary

    def end(self) -> int:
        return 0

    def build(self, documents: Iterable[str]) -> Tokenizer:
        return train(documents, self.vocabulary)

    def load(self, folder: Path) -> FileTokenizer:
        return load_tokenizer(folder, self.end(), self.end())


def train(documents: Iterable[str], vocabulary: int) -> FileTokenizer:
    """Byte-level BPE trained on documents, with the pre-tokenizer of GPT-2; the end token is 0."""
    return train_tokenizer(documents, vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False), [END])


class ChatBPE(TokenizerConfig):
    """Byte-level BPE with one token per digit, and special tokens for padding, roles and tasks."""

    kind: Literal["chat-bpe"] = "chat-bpe"
    vocabulary: int = Field(
        4096, ge=264, le=MOST, description="vocabulary size, including 256 bytes and seven reserved tokens"
    )

    def size(self) -> int:
        return self.vocabulary

    def end(self) -> int:
        return 0

    def build(self, documents: Iterable[str]) -> Tokenizer:
        return train_chat(documents, self.vocabulary)

    def load(self, folder: Path) -> FileTokenizer:
        return load_tokenizer(folder, self.end(), self.end())


def train_chat(documents: Iterable[str], vocabulary: int) -> FileTokenizer:
    """Byte-level BPE trained on documents, with one token per digit, for arithmetic, and the reserved tokens."""
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return train_tokenizer(documents, vocabulary, pre_tokenizers.Sequence(split), list(RESERVED))


def train_tokenizer(documents: Iterable[str], vocabulary: int, split: Any, reserved: list[str]) -> FileTokenizer:
    """Byte-level BPE with a pre-tokenizer `split`; reserved tokens have the first ids.

    Training takes the square of the time for longer pieces, such as a line of Chinese without punctuation: the pairs of
    those beyond 4,096 bytes are counted in parts.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.Split(LONG, "isolated")])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=reserved,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    start(lambda: tokenizer.train_from_iterator(documents, trainer)).result()
    tokenizer.pre_tokenizer = split
    return FileTokenizer(tokenizer, 0, 0)


class TokenizerFile(TokenizerConfig):
    """Any tokenizer.json, as the tokenizers library writes it."""

    kind: Literal["file"] = "file"
    path: str = Field(description="tokenizer.json, or a folder that contains one")
    vocabulary: Positive | Literal["auto"] = Field(
        "auto", description="vocabulary size of the model; auto reads the file"
    )
    end_id: int | Literal["auto"] | None = Field(
        "auto", description="id of the end-of-document token; auto looks for its usual names"
    )

    start_id: int | Literal["auto"] | None = Field(
        "auto", description="id of the begin-of-document token; auto looks for its usual names, then uses the end"
    )

    other_end_ids: tuple[int, ...] = added((), description="further ids at which a sample ends")
    pad_id: int | None = added(None, description="id of the padding token; none looks for <|pad|>, then uses the end")

    def file(self) -> Path:
        """The path of the tokenizer.json. Raises ConfigError when it does not exist."""
        path = Path(self.path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(f"data.tokenizer.path: there is no file {path}")
        return path

    def size(self) -> int:
        return max(vocabulary_of(self.file()).values()) + 1 if self.vocabulary == "auto" else self.vocabulary

    def end(self) -> int | None:
        if self.end_id != "auto":
            return self.end_id
        return first_of(END_TOKENS, vocabulary_of(self.file()))

    def other_ends(self) -> tuple[int, ...]:
        return self.other_end_ids

    def resolve(self) -> TokenizerFile:
        known = {"vocabulary": self.size(), "end_id": self.end(), "start_id": self.start()}
        return self.model_copy(update=known)

    def start(self) -> int | None:
        """The id with which a document begins."""
        if self.start_id != "auto":
            return self.start_id
        found = first_of(START_TOKENS, vocabulary_of(self.file()))
        return self.end() if found is None else found

    def build(self, documents: Iterable[str]) -> Tokenizer:
        check_foreign(self.file())
        return FileTokenizer.load(self.file(), self.end(), self.start())

    def load(self, folder: Path) -> FileTokenizer:
        if (folder / "tokenizer.json").exists():
            check_foreign(folder / "tokenizer.json")
        return load_tokenizer(folder, self.end(), self.start())

    def fingerprint(self) -> str:
        return fingerprint([self.file()])


def first_of(names: Iterable[str], ids: dict[str, int]) -> int | None:
    """The id of the first of these tokens that is in the vocabulary."""
    return next((ids[name] for name in names if name in ids), None)


@lru_cache(maxsize=8)
def _read(path: Path, changed: float) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not a tokenizer.json: it is not JSON") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a tokenizer.json: it is not a JSON object")
    return content


def vocabulary_of(path: Path) -> dict[str, int]:
    """{token: id} of a tokenizer.json, with added tokens. Raises ConfigError when it is not a tokenizer.json."""
    content = _read(path, path.stat().st_mtime)
    model = content.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise ConfigError(f"{path} is not a tokenizer.json: it has no model with a vocabulary")
    try:
        vocab = model["vocab"]
        pairs = vocab.items() if isinstance(vocab, dict) else ((entry[0], i) for i, entry in enumerate(vocab))
        found = {str(name): int(number) for name, number in pairs}
        found |= {str(token["content"]): int(token["id"]) for token in content.get("added_tokens", ())}
        wrong = next((number for number in found.values() if not 0 <= number < MOST), None)
        if wrong is not None or not found:
            raise ValueError("it is empty" if wrong is None else f"the id {wrong:,}, allowed: 0 to {MOST - 1:,}")
        return found
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise ConfigError(f"{path} is not a tokenizer.json: its vocabulary cannot be read ({error})") from None


def load_tokenizer(folder: Path, end: int | None, start: int | None) -> FileTokenizer:
    """The tokenizer of a run folder. Raises TokenizerError when it has no tokenizer.json."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise TokenizerError(
            f"{folder} has no tokenizer.json: the model can be called from Python, but cannot read text"
        )
    return FileTokenizer.load(path, end, start)


@contextmanager
def refusal(what: str) -> Iterator[None]:
    """Turn what the library raises into a TokenizerError: bare Exceptions, and a PanicException that is none."""
    try:
        yield
    except (SanbuError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        text = " ".join(str(error).split())[:160] or type(error).__name__
        raise TokenizerError(f"{what}: {text}") from None


class FileTokenizer:
    """The tokenizer of a tokenizer.json. Text is never encoded as special tokens, even if it contains their names."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, end: int | None, start: int | None) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer, self.end, self.start = tokenizer, end, start
        byte_level = "'ByteLevel'" in str(json.loads(tokenizer.to_str()).get("decoder"))
        special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        texts: dict[int, str] = {i: token for token, i in tokenizer.get_vocab(with_added_tokens=True).items()}
        piece = byte_level_piece if byte_level else marked_piece
        ordinary = {i: text for i, text in texts.items() if i not in special}
        self.pieces = [piece(ordinary[i]) if i in ordinary else b"" for i in range(max(texts) + 1)]
        self.added = self._find_added()

    @classmethod
    def load(cls, path: Path, end: int | None, start: int | None) -> FileTokenizer:
        """Read a tokenizer.json. Raises TokenizerError when it is not one."""
        with refusal(f"{path} is not a tokenizer.json"):
            return cls(tokenizers.Tokenizer.from_file(str(path)), end, start)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        if sum(map(len, texts)) < LARGE:
            encodings = self._encode(texts)
        else:
            encodings = start(lambda: self._encode(texts)).result()
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def _encode(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        with refusal("the tokenizer cannot encode a text"):
            return list(self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))

    def may_cut(self, text: str, place: int) -> bool:
        """Whether two words of the pre-tokenizer meet there, and both sides alone have the tokens of the whole.

        No token spans two words, and what divides words looks at few characters, so the neighbourhood decides.
        """
        after = text[place : place + NEAR[-1]]
        befores = [text[max(0, place - size) : place] for size in NEAR]
        texts = [after, *befores, *(before + after for before in befores)]
        right, *found = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return all(
            whole.ids == left.ids + right.ids and words_meet(whole.word_ids, len(left.ids))
            for left, whole in zip(found[: len(NEAR)], found[len(NEAR) :], strict=True)
        )

    def _find_added(self) -> tuple[bytes, bytes]:
        """What is before and after a text of one letter, once it is encoded: spaces, or nothing."""
        whole = bytes_of(self.pieces, self.tokenizer.encode("a", add_special_tokens=False).ids)
        before, letter, after = whole.partition(b"a")
        return (before, after) if letter and not (before + after).strip() else (b"", b"")

    def special(self, name: str) -> int | None:
        """The id of a special token, or None."""
        return self.tokenizer.token_to_id(name)

    @cached_property
    def with_special(self) -> tokenizers.Tokenizer:
        """A copy that reads special tokens in text: a switch of the tokenizer itself would be seen by other threads."""
        copy = tokenizers.Tokenizer.from_str(self.tokenizer.to_str())
        copy.encode_special_tokens = False
        return copy

    def encode_with_special(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text in which special tokens may occur, and the span of characters of each id."""
        with refusal("the tokenizer cannot encode a text"):
            encoding = self.with_special.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def save(self, folder: Path) -> None:
        write_text(folder / "tokenizer.json", self.tokenizer.to_str(pretty=True))


def words_meet(words: Sequence[int | None], place: int) -> bool:
    """Whether a word ends before that token, and one begins with it. words: the number of the word of each token."""
    return 0 < place < len(words) and words[place - 1] != words[place]


def byte_of_character() -> dict[str, int]:
    """{character: byte} in the byte alphabet of GPT-2: printable bytes map to themselves, others past 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    printable = {chr(value): value for value in plain}
    return printable | {chr(256 + index): value for index, value in enumerate(others)}


BYTES = byte_of_character()


def byte_level_piece(token: str) -> bytes:
    """The bytes of a token in the byte alphabet of GPT-2, or in UTF-8 for added tokens with other characters."""
    if all(character in BYTES for character in token):
        return bytes(BYTES[character] for character in token)
    return token.encode("utf-8")


def marked_piece(token: str) -> bytes:
    """The bytes of a token with markers: U+2581 (SentencePiece) and </w> (GPT-1) for spaces, <0x0A> for bytes."""
    if token.startswith("<0x") and token.endswith(">") and len(token) == 6:
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").replace("</w>", " ").encode("utf-8")


def byte_file_tokenizer() -> FileTokenizer:
    """The byte tokenizer as a tokenizer.json: byte-level BPE without merges, with the same ids."""
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=BYTES, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return FileTokenizer(tokenizer, 256, 256)
