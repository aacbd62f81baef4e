"""Text as rows of tokens, a pure function of position. Documents are packed into rows without losing any token."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.bpe import BPE
from sanbu.codecs.codec import Codec
from sanbu.codecs.text import TextCodec
from sanbu.codecs.tokenizer import TextBytes, TokenizerConfig
from sanbu.config import SanbuError, added, dump
from sanbu.data import remote, shards, sources
from sanbu.data.cache import cache_folder
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.order import shuffled
from sanbu.data.record_files import told
from sanbu.files import read_json, write_json
from sanbu.progress import progress_bytes
from sanbu.space import IGNORED, Batch, Space


class Text(DataConfig):
    """Text as rows of tokens; documents are packed into rows and do not attend to each other."""

    measure: ClassVar[str] = "text"
    kind: Literal["text"] = "text"
    path: str = Field(
        "builtin:python",
        description="file, folder, hub:NAME, address of tokens (https://, s3://), or builtin:python: Python's docs",
    )
    field: str = Field("text", description="(JSON, CSV, Parquet) field that holds the text")
    tokenizer: TokenizerConfig = BPE()
    context: int = Field(256, ge=2, description="tokens per row")
    validation: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="fraction of the text held out: whole documents, or the end of the text if there are few",
    )

    lanes: int = added(
        0, ge=0, description="rows side by side, each continued by the row of the next step; 0 shuffles the rows"
    )

    def space(self) -> Space:
        others = self.tokenizer.other_ends()
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end(), other_ends=others)

    def resolve(self) -> Text:
        path = sources.full_name(self.path, "python")
        return self.model_copy(update={"path": path, "tokenizer": self.tokenizer.resolve()})

    def build(self) -> Data:
        return build(self)

    def example(self, rows: int) -> Batch:
        tokens = {name: no_tokens(rows, self.context) for name in ("tokens", "targets", "positions")}
        return tokens | {"bytes": no_tokens(rows)}

    def codec(self, folder: Path) -> Codec:
        return TextCodec(self.tokenizer.load(folder))


class TextRows:
    """Rows of `context` tokens cut from a token stream; the target of each token is the next token.

    A row may contain several documents. positions_BT restart at 0 with each, which tells a model to attend within a
    document only; data of a single document has no positions. bytes_B counts the bytes of text of a row's targets.
    """

    left_out: Mapping[str, int] = MappingProxyType({})  # what is not among the documents, with its reasons

    def __init__(self, found: shards.Shards, codec: TextCodec, context: int, vocabulary: int, lanes: int = 0) -> None:
        self.shards, self.codec, self.context, self.lanes = found, codec, context, lanes
        self.rows = count_rows(len(found.train), context)
        self.held_out_rows = count_rows(len(found.held_out), context)
        self.fingerprint = found.folder.name
        self.text_bytes = TextBytes(codec.tokenizer, vocabulary)
        self.single_document = found.documents["train"] == 1

    @property
    def held_out_bytes(self) -> int:
        """The bytes of text of all held-out targets: of the stream without its first token, which is never a target."""
        first = self.shards.held_out[:1].astype(np.int64)
        return self.shards.bytes["held_out"] - int(self.text_bytes.lengths_V[first].sum())

    def describe(self) -> str:
        """Numbers of documents, bytes and tokens, and bytes per token."""
        size = sum(self.shards.bytes.values())
        tokens = len(self.shards.train) + len(self.shards.held_out)
        documents = sum(self.shards.documents.values())
        ratio = f"{size / max(tokens, 1):.2f} bytes per token"
        return f"{documents:,} documents, {size:,} bytes in {tokens:,} tokens: {ratio}{told(self.left_out)}"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        if self.lanes:
            return self._lanes(np.arange(start, start + size))
        return self._rows(self.shards.train, shuffled(np.arange(start, start + size), self.rows, seed=0))

    def _lanes(self, positions: np.ndarray) -> Batch:
        """Row r is piece r // lanes of lane r % lanes; `continues` says whether the piece before it is of its lane."""
        size = self.rows // self.lanes
        lane, piece = positions % self.lanes, positions // self.lanes % size
        batch = self._rows(self.shards.train, lane * size + piece)
        return batch | {"lane": torch.from_numpy(lane), "continues": torch.from_numpy(piece > 0)}

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in the order of the text."""
        return self._rows(self.shards.held_out, np.arange(start, min(start + size, self.held_out_rows)))

    def _rows(self, stream: np.ndarray, rows: np.ndarray) -> Batch:
        context, end = self.context, self.codec.tokenizer.end
        assert end is not None, "`shards.write` requires an end token"
        window = np.full((len(rows), context + 1), -1, dtype=np.int64)
        for index, piece in enumerate(shards.pieces(stream, (rows * context).tolist(), context + 1)):
            window[index, : len(piece)] = piece
        both = torch.from_numpy(window)
        tokens, targets = both[:, :-1].clamp(min=0), both[:, 1:]
        batch = {"tokens": tokens, "targets": targets.where(targets >= 0, IGNORED)}
        if not self.single_document:
            batch["positions"] = document_positions(tokens.eq(end))
        size = np.where(window[:, 1:] >= 0, self.text_bytes(window[:, :-1], window[:, 1:]), 0)
        return batch | {"bytes": torch.from_numpy(size.sum(1))}


def count_rows(tokens: int, context: int) -> int:
    """The number of rows in a stream of so many tokens; its last token is only a target."""
    return max(0, math.ceil((tokens - 1) / context))


def document_positions(starts_BT: Tensor) -> Tensor:
    """Positions that restart at 0 at the start of each document and of each row."""
    time = torch.arange(starts_BT.shape[1]).expand_as(starts_BT)
    return time - time.where(starts_BT, 0).cummax(1).values


def build(config: Text) -> TextRows:
    """The rows of a config; tokenized text is read from the cache. Raises SanbuError for less text than one row."""
    found = open_address(config) if remote.is_address(config.path) else open_cache(config)
    codec = TextCodec(config.tokenizer.load(found.folder))
    rows = TextRows(found, codec, config.context, config.tokenizer.size(), config.lanes)
    if (found.folder / "left_out.json").exists():  # not in caches of earlier versions
        rows.left_out = read_json(found.folder / "left_out.json")
    check(config, rows)
    return rows


def open_address(config: Text) -> shards.Shards:
    """Tokens at an address. Raises SanbuError if they are of another tokenizer."""
    found, vocabulary = remote.open_remote(config.path), config.tokenizer.size()
    written = read_json(found.folder / "header.json")["vocabulary"]
    if written != vocabulary:
        raise SanbuError(f"data.tokenizer: given one of {vocabulary} tokens, but {config.path} has tokens of {written}")
    return found


def open_cache(config: Text) -> shards.Shards:
    """The tokens of a text in the cache; they are made where they are missing."""
    file = config.tokenizer.fingerprint()
    about = json.dumps(
        [
            shards.FORMAT,
            sources.fingerprint(config.path),
            config.field,
            config.validation,
            dump(config.tokenizer),
            file and f"{file}, cut 2",  # before 2, long documents were cut where some foreign tokenizers mind it
        ]
    )
    name = "text-" + hashlib.sha256(about.encode()).hexdigest()[:24]
    vocabulary = config.tokenizer.size()

    def make(folder: Path) -> None:
        read = Corpus(config)
        tokenizer = config.tokenizer.build(read)
        with progress_bytes("tokenizing", read.bytes or None) as progress:
            shards.write(folder, read, tokenizer, vocabulary, config.validation, progress)
        tokenizer.save(folder)
        write_json(folder / "left_out.json", read.left_out)

    return shards.Shards.open(cache_folder(name, make))


def check(config: Text, rows: TextRows) -> None:
    """Raise SanbuError if there is less text than a row, or lanes do not fit the text."""
    found = rows.shards
    if config.lanes and not rows.single_document:
        raise SanbuError(f"data.lanes: given {config.lanes}, but {config.path!r} has several documents; allowed: 0")
    if config.lanes > rows.rows:
        raise SanbuError(f"data.lanes: given {config.lanes}, but the text has {rows.rows} rows; allowed: 0 to that")
    if len(found.train) <= config.context:
        size = found.bytes["train"] + found.bytes["held_out"]
        raise SanbuError(
            f"data.path: {config.path!r} has {size} bytes of text, {max(0, len(found.train) - 1)} tokens for training;"
            f" at least one row of data.context={config.context} is needed; add text or lower data.context"
        )


class Corpus(Iterable[str]):
    """The documents of a config; each iteration reads them again. `bytes` is their size, known after the first.

    left_out: what is not among them, and why, as counted by the last iteration.
    """

    def __init__(self, config: Text) -> None:
        self.config, self.bytes = config, 0
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        total = 0
        self.left_out.clear()
        for text in sources.documents(self.config.path, self.config.field, self.left_out):
            total += len(text.encode())
            yield text
        self.bytes = total
