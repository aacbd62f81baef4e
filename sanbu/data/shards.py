"""Tokens on disk: two memory-mapped streams, training and held out, with a JSON header.

A stream is `end d1 end d2 end ...`: every document between two ends, so that each of its tokens, its last end
included, is predicted once from what came before in the same document. A folder appears whole or not at all, under a
name that is the hash of what went in; two processes that want it at once make it once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock

from sanbu.codecs.tokenizer import Tokenizer, piece_lengths
from sanbu.config import SanbuError
from sanbu.files import read_json, replace_atomically

FORMAT = 1
FEW = 20  # documents below which the held-out part is the end of the text and not whole documents
BATCH_BYTES = 1 << 20
Progress = Callable[[int], None]
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Shards:
    """Token streams of one corpus. bytes: of text, by part. documents: how many, by part."""

    folder: Path
    train: np.ndarray
    held_out: np.ndarray
    documents: dict[str, int]
    bytes: dict[str, int]

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Map the streams of a folder that `write` made."""
        header = read_json(folder / "header.json")
        streams = {
            part: np.memmap(folder / f"{part}.bin", dtype=header["dtype"], mode="r")
            if header["tokens"][part]
            else np.zeros(0, dtype=header["dtype"])
            for part in ("train", "held_out")
        }
        return cls(folder, streams["train"], streams["held_out"], header["documents"], header["bytes"])


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The cache folder of that name, made by `make` in a temporary place if it is not there yet."""
    root = Path(os.environ.get("SANBU_CACHE") or Path.home() / ".cache" / "sanbu")
    folder = root / name
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            if not folder.exists():
                with replace_atomically(folder) as temporary:
                    temporary.mkdir()
                    make(temporary)
    return folder


def write(
    folder: Path, documents: Iterable[str], tokenizer: Tokenizer, vocabulary: int, held_out: float, progress: Progress
) -> None:
    """Tokenize documents, in parallel, into the streams of a folder; `progress` is told bytes as they are done."""
    if tokenizer.end is None:
        raise SanbuError("data.tokenizer: this tokenizer has no end-of-text token, so documents cannot be told apart")
    dtype = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    end = np.array([tokenizer.end], dtype=dtype).tobytes()
    lengths = piece_lengths(tokenizer, vocabulary)
    count = {"train": 0, "held_out": 0}
    order: list[str] = []  # the part of each of the first documents
    with (folder / "train.bin").open("wb") as train, (folder / "held_out.bin").open("wb") as other:
        streams = {"train": train, "held_out": other}

        def encode(pieces: list[Piece]) -> list[np.ndarray]:
            return tokenizer.encode_batch([piece.text for piece in pieces])

        for pieces, encoded in ahead(encode, batches(documents, tokenizer.exact_pieces)):
            for piece, ids in zip(pieces, encoded, strict=True):
                part = "held_out" if piece.chance < held_out else "train"
                if piece.first:
                    count[part] += 1
                    order += [part] if len(order) < FEW else []
                    streams[part].write(end)
                streams[part].write(ids.astype(dtype).tobytes())
            progress(sum(len(piece.text.encode()) for piece in pieces))
        for part in streams:
            if count[part]:
                streams[part].write(end)
    if sum(count.values()) < FEW:
        count = split_tail(folder, np.dtype(dtype), order, tokenizer.end, held_out)
    header = {
        "format": FORMAT,
        "dtype": np.dtype(dtype).name,
        "vocabulary": vocabulary,
        "end": tokenizer.end,
        "tokens": {part: (folder / f"{part}.bin").stat().st_size // np.dtype(dtype).itemsize for part in count},
        "documents": count,
        "bytes": {part: text_bytes(folder / f"{part}.bin", dtype, lengths) for part in count},
    }
    (folder / "header.json").write_text(json.dumps(header), encoding="utf-8")


def ahead(function: Callable[[A], B], items: Iterable[A], workers: int = 2) -> Iterator[tuple[A, B]]:
    """Each item with `function(item)`, in order, while threads already work at the next ones."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[A, Future[B]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def split_tail(folder: Path, dtype: np.dtype[Any], order: list[str], end: int, held_out: float) -> dict[str, int]:
    """With few documents, hold out the end of the whole stream, in its order, instead of whole documents."""
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


def text_bytes(file: Path, dtype: type, lengths: np.ndarray) -> int:
    """How many bytes of text a stream stands for."""
    if not file.stat().st_size:
        return 0
    ids = np.memmap(file, dtype=dtype, mode="r")
    size = 2**24
    parts = (ids[start : start + size] for start in range(0, len(ids), size))
    return sum(int(lengths[part].sum()) for part in parts)


@dataclass(frozen=True)
class Piece:
    """A part of a document; `chance` in [0, 1) is the hash of the whole document's first part."""

    text: str
    first: bool
    chance: float


def batches(documents: Iterable[str], cut: bool) -> Iterator[list[Piece]]:
    """Pieces of about 1 MB together; long documents are cut between lines where that does not change their tokens."""
    batch: list[Piece] = []
    size = 0
    for document in documents:
        digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
        chance = int.from_bytes(digest) / 2**64
        for index, text in enumerate(between_lines(document) if cut else (document,)):
            batch.append(Piece(text, index == 0, chance))
            size += len(text)
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


LINE_END = re.compile(r"(?<=\S)\n(?=\S)")


def between_lines(document: str, size: int = 1 << 14) -> Iterator[str]:
    """Cut a document where a line ends and the next begins with no blank at either side: there no token goes across."""
    start = 0
    while len(document) - start > 2 * size:
        found = LINE_END.search(document, start + size)
        if found is None:
            break
        yield document[start : found.end()]
        start = found.end()
    yield document[start:]
