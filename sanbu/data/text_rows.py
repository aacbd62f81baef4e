"""Text as rows of tokens: pure functions of position, documents packed without loss and kept apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.bpe import BPE
from sanbu.codecs.codec import Codec
from sanbu.codecs.text import TextCodec
from sanbu.codecs.tokenizer import TokenizerConfig, piece_lengths
from sanbu.config import SanbuError, dump
from sanbu.data import shards, sources
from sanbu.data.data import Data, DataConfig
from sanbu.data.order import shuffled
from sanbu.progress import progress_bytes
from sanbu.space import IGNORED, Batch, Space


class Text(DataConfig):
    """Text as rows of tokens; documents packed without loss and kept apart."""

    measure: ClassVar[str] = "text"
    kind: Literal["text"] = "text"
    path: str = Field(
        "python", description="a file, a folder, hub:NAME, or python: the installed Python's own documentation"
    )
    field: str = Field("text", description="the field of JSONL and Parquet records that holds the text")
    tokenizer: TokenizerConfig = BPE()
    context: int = Field(256, ge=2, description="tokens a row")
    validation: float = Field(
        0.05, ge=0, lt=1, description="fraction of the text held out, by whole documents where there are many"
    )

    def space(self) -> Space:
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end())

    def resolve(self) -> Text:
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve()})

    def build(self) -> Data:
        return build(self)

    def codec(self, folder: Path) -> Codec:
        return TextCodec(self.tokenizer.load(folder))


class TextRows:
    """Rows of `context` tokens cut from a token stream, and the next token of each as its target.

    A row may hold several documents; positions_BT restart at 0 with each, which is all a model needs to keep them
    apart. Data of a single document gives no positions. bytes_B counts the text bytes of a row's targets.
    """

    def __init__(self, found: shards.Shards, codec: TextCodec, context: int, vocabulary: int) -> None:
        self.shards, self.codec, self.context = found, codec, context
        self.rows = max(0, -(-(len(found.train) - 1) // context))
        self.held_out_rows = max(0, -(-(len(found.held_out) - 1) // context))
        self.fingerprint = found.folder.name
        self.lengths = torch.from_numpy(piece_lengths(codec.tokenizer, vocabulary))
        self.alone = found.documents["train"] == 1

    def describe(self) -> str:
        """Documents, bytes, tokens, and the compression of the tokenizer."""
        size = sum(self.shards.bytes.values())
        tokens = len(self.shards.train) + len(self.shards.held_out)
        documents = sum(self.shards.documents.values())
        return (
            f"{documents:,} documents, {size:,} bytes in {tokens:,} tokens: {size / max(tokens, 1):.2f} bytes a token"
        )

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._rows(self.shards.train, shuffled(np.arange(start, start + size), self.rows, seed=0))

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in their own order."""
        return self._rows(self.shards.held_out, np.arange(start, min(start + size, self.held_out_rows)))

    def _rows(self, stream: np.ndarray, rows: np.ndarray) -> Batch:
        context, end = self.context, self.codec.tokenizer.end
        assert end is not None, "shards are made with an end"
        window = np.full((len(rows), context + 1), -1, dtype=np.int64)
        for index, row in enumerate(rows):
            piece = stream[row * context : row * context + context + 1]
            window[index, : len(piece)] = piece
        both = torch.from_numpy(window)
        tokens, targets = both[:, :-1].clamp(min=0), both[:, 1:]
        batch = {"tokens": tokens, "targets": targets.where(targets >= 0, IGNORED)}
        if not self.alone:
            batch["positions"] = document_positions(tokens.eq(end))
        return batch | {"bytes": self.lengths[targets.clamp(min=0)].where(targets >= 0, 0).sum(1)}


def document_positions(starts_BT: Tensor) -> Tensor:
    """Positions that restart at 0 wherever a document starts, and at the beginning of each row."""
    time = torch.arange(starts_BT.shape[1]).expand_as(starts_BT)
    return time - time.where(starts_BT, 0).cummax(1).values


def build(config: Text) -> TextRows:
    """Tokenize (or find tokenized) the text of a config. Raises SanbuError when there is too little of it."""
    about = json.dumps(
        [
            shards.FORMAT,
            sources.fingerprint(config.path),
            config.field,
            config.validation,
            dump(config.tokenizer),
            config.tokenizer.fingerprint(),
        ]
    )
    name = "text-" + hashlib.sha256(about.encode()).hexdigest()[:24]
    vocabulary = config.tokenizer.size()

    def make(folder: Path) -> None:
        read = counted(config)
        tokenizer = config.tokenizer.build(read)
        with progress_bytes("tokenizing", read.bytes or None) as progress:
            shards.write(folder, read, tokenizer, vocabulary, config.validation, progress)
        tokenizer.save(folder)

    folder = shards.cached(name, make)
    found = shards.Shards.open(folder)
    rows = TextRows(found, TextCodec(config.tokenizer.load(folder)), config.context, vocabulary)
    if len(found.train) <= config.context:
        size = found.bytes["train"] + found.bytes["held_out"]
        raise SanbuError(
            f"data.path: {config.path!r} holds {size} bytes of text, {max(0, len(found.train) - 1)} tokens to train on;"
            f" at least one row of data.context={config.context} is needed"
        )
    return rows


class counted(Iterable[str]):  # noqa: N801 - reads as a function
    """The documents of a config, as often as they are asked for; `bytes` is known after the first time."""

    def __init__(self, config: Text) -> None:
        self.config, self.bytes = config, 0

    def __iter__(self) -> Iterator[str]:
        total = 0
        for text in sources.documents(self.config.path, self.config.field):
            total += len(text.encode())
            yield text
        self.bytes = total
