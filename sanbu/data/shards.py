"""Tokens on disk: two memory-mapped streams, training and held out, with a JSON header.

A stream is `end d1 end d2 end ...`: every document has an end token on both sides, so each of its tokens and the end
token after it are predicted exactly once from the tokens before them in that document. A cache folder is named by the
hash of its inputs and is created atomically; of several processes that need it at once, one creates it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sanbu.codecs.tokenizer import TextBytes, Tokenizer
from sanbu.config import SanbuError
from sanbu.files import read_json
from sanbu.progress import start

FORMAT = 1
FEW = 20  # with fewer documents, the held-out part is the end of the text instead of whole documents
BATCH_BYTES = 1 << 20
Progress = Callable[[int], None]
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Shards:
    """The token streams of a corpus. bytes, documents: size of the text and number of documents by part."""

    folder: Path
    train: np.ndarray
    held_out: np.ndarray
    documents: dict[str, int]
    bytes: dict[str, int]

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Memory-map the streams of a folder made by `write`."""
        header = read_json(folder / "header.json")
        streams = {
            part: np.memmap(folder / f"{part}.bin", dtype=header["dtype"], mode="r")
            if header["tokens"][part]
            else np.zeros(0, dtype=header["dtype"])
            for part in ("train", "held_out")
        }
        return cls(folder, streams["train"], streams["held_out"], header["documents"], header["bytes"])


def pieces(stream: Any, begins: list[int], size: int) -> list[np.ndarray]:
    """The `size` tokens of a stream from each begin on, fewer at its end; of a remote one read together."""
    if isinstance(stream, np.ndarray):
        return [stream[begin : begin + size] for begin in begins]
    found: list[np.ndarray] = stream.pieces(begins, size)
    return found


def write(
    folder: Path, documents: Iterable[str], tokenizer: Tokenizer, vocabulary: int, held_out: float, progress: Progress
) -> None:
    """Tokenize documents in parallel into the streams of a folder; `progress` is called with numbers of bytes."""
    if tokenizer.end is None:
        raise SanbuError("data.tokenizer: documents are separated by an end token, but this tokenizer has none")
    dtype = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    end = np.array([tokenizer.end], dtype=dtype).tobytes()
    size = {"train": 0, "held_out": 0}
    count = {"train": 0, "held_out": 0}
    order: list[str] = []  # the parts of the first documents, in their order
    with (folder / "train.bin").open("wb") as train, (folder / "held_out.bin").open("wb") as other:
        streams = {"train": train, "held_out": other}

        def encode(pieces: list[DocumentPart]) -> list[np.ndarray]:
            return tokenizer.encode_batch([piece.text for piece in pieces])

        for pieces, encoded in map_ahead(encode, batches(documents, tokenizer)):
            for piece, ids in zip(pieces, encoded, strict=True):
                part = "held_out" if piece.chance < held_out else "train"
                if piece.first:
                    count[part] += 1
                    if len(order) < FEW:
                        order.append(part)
                    streams[part].write(end)
                streams[part].write(ids.astype(dtype).tobytes())
                size[part] += len(piece.text.encode())
            progress(sum(len(piece.text.encode()) for piece in pieces))
        for part in streams:
            if count[part]:
                streams[part].write(end)
    if sum(count.values()) < FEW:
        count = split_tail(folder, np.dtype(dtype), order, tokenizer.end, held_out)
        size = divide_bytes(folder, dtype, TextBytes(tokenizer, vocabulary), sum(size.values()))
    files = {part: folder / f"{part}.bin" for part in count}
    sizes = {
        "tokens": {part: file.stat().st_size // np.dtype(dtype).itemsize for part, file in files.items()},
        "documents": count,
        "bytes": size,
    }
    write_header(folder, np.dtype(dtype), vocabulary, tokenizer.end, sizes)


def write_header(
    folder: Path, dtype: np.dtype[Any], vocabulary: int, end: int, sizes: dict[str, dict[str, int]]
) -> None:
    """Write header.json. sizes: tokens, documents and bytes, each by part."""
    header = {"format": FORMAT, "dtype": dtype.name, "vocabulary": vocabulary, "end": end, **sizes}
    (folder / "header.json").write_text(json.dumps(header), encoding="utf-8")


def map_ahead(function: Callable[[A], B], items: Iterable[A], workers: int = 2) -> Iterator[tuple[A, B]]:
    """(item, function(item)) in order; threads compute the next results ahead."""
    waiting: deque[tuple[A, Future[B]]] = deque()
    for item in items:
        waiting.append((item, start(partial(function, item))))
        if len(waiting) > workers:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def split_tail(folder: Path, dtype: np.dtype[Any], order: list[str], end: int, held_out: float) -> dict[str, int]:
    """Hold out the end of the whole stream, in its original order, instead of whole documents."""
    documents = {}
    for part in ("train", "held_out"):
        stream = np.fromfile(folder / f"{part}.bin", dtype=dtype)
        documents[part] = iter(np.split(stream, np.flatnonzero(stream == end))[1:])
    last = [np.array([end], dtype=dtype)] if order else []
    first = [next(documents[part]) for part in order]
    whole = np.concatenate([*first, *last, np.zeros(0, dtype=dtype)])
    cut = round(len(whole) * (1 - held_out))
    whole[:cut].tofile(folder / "train.bin")
    whole[cut:].tofile(folder / "held_out.bin")
    return {"train": len(order), "held_out": int(cut < len(whole))}


def divide_bytes(folder: Path, dtype: type, text_bytes: TextBytes, whole: int) -> dict[str, int]:
    """The bytes of the text by part, after `split_tail`. whole: those of both parts, as counted in the text."""
    ids: np.ndarray = np.fromfile(folder / "held_out.bin", dtype=dtype)
    first = text_bytes.lengths_V[ids[:1]].sum()
    tail = int(first + text_bytes(ids[:-1], ids[1:]).sum())
    if not (folder / "train.bin").stat().st_size:
        tail = whole
    return {"train": whole - tail, "held_out": tail}


@dataclass(frozen=True)
class DocumentPart:
    """A part of a document. first: it begins the document. chance: a hash of the whole document in [0, 1)."""

    text: str
    first: bool
    chance: float


def batches(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[DocumentPart]]:
    """Batches of about 1 MB of text, in which long documents are in parts."""
    batch: list[DocumentPart] = []
    size = 0
    for document in documents:
        digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
        chance = int.from_bytes(digest) / 2**64
        for index, text in enumerate(cut(document, tokenizer)):
            batch.append(DocumentPart(text, index == 0, chance))
            size += len(text)
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


PLACES = re.compile(r"\w(?= \w)|\w\n(?=\w)")


def cut(document: str, tokenizer: Tokenizer, size: int = 1 << 14) -> Iterator[str]:
    """Parts of a document of `size` characters or more, cut between words where this changes no token.

    A document of less than twice the size, or in which no such place is found, remains whole.
    """
    begin, reach = 0, size
    while len(document) - begin > 2 * size:
        found = islice(PLACES.finditer(document, begin + reach), 4)
        places = [match.end() for match in found]
        if not places:
            break
        place = next((place for place in places if tokenizer.may_cut(document, place)), None)
        if place is None:
            reach = 2 * (places[-1] - begin)  # so that few places are tried where none will do
        else:
            yield document[begin:place]
            begin, reach = place, size
    yield document[begin:]
