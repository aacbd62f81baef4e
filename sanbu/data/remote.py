"""Token streams in an object store or on a web server, read row by row; the disk of a node need not hold them.

An address is a folder of the cache (`text-...`, made on some machine with `shards.write`) that was copied there. fsspec
reads it: https, s3, gs, hdfs and others. Rows are a pure function of their position, as those on a disk are. So a
process reads the rows that it learns from, no row is read twice in an epoch or left out, and the order depends on
nothing else. The small files, header and tokenizer, are kept in the local cache; a run notes the hash of all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sanbu.data.cache import HASHES, cache_folder
from sanbu.data.reading import SourceError
from sanbu.data.shards import FORMAT, Shards
from sanbu.files import FileError, check_seal, file_hash, read_json

TRIES, PAUSE = 4, 0.5  # of a request, and seconds before the second; each further pause is twice as long
A = TypeVar("A")


def is_address(path: str) -> bool:
    """Whether a path is the address of tokens."""
    return "://" in path


class Stream:
    """A stream of tokens of which parts are read, several at a time."""

    def __init__(self, store: Any, place: str, dtype: np.dtype[Any], tokens: int) -> None:
        self.store, self.place, self.dtype, self.tokens = store, place, dtype, tokens

    def __len__(self) -> int:
        return self.tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        begin, end, _ = part.indices(self.tokens)
        return self.pieces([begin], max(0, end - begin))[0]

    def pieces(self, begins: Sequence[int], size: int) -> list[np.ndarray]:
        """The `size` tokens from each begin on; fewer at the end."""
        width = self.dtype.itemsize
        spans = [(begin, min(begin + size, self.tokens)) for begin in begins]
        asked = [(begin * width, end * width) for begin, end in spans if end > begin]
        starts, ends = [begin for begin, _ in asked], [end for _, end in asked]
        places = [self.place] * len(asked)
        read = again(self.place, lambda: self.store.cat_ranges(places, starts, ends, on_error="raise"))
        for found, (begin, end) in zip(read, asked, strict=True):
            if len(found) != end - begin:
                raise SourceError(f"data.path: {self.place} does not give parts of a file; a server must answer ranges")
        given = iter(read)
        return [np.frombuffer(next(given) if end > begin else b"", self.dtype) for begin, end in spans]


def open_remote(address: str) -> Shards:
    """The streams at an address, with the small files beside them in the local cache. Raises SourceError."""
    store, root = open_store(address)
    content = again(f"{root}/{HASHES}", lambda: store.cat_file(f"{root}/{HASHES}"))
    try:
        about = json.loads(content)
        check_seal(Path(HASHES), about)
        files: dict[str, str] = about["files"]
    except (ValueError, KeyError, FileError):
        raise SourceError(f"data.path: {address} is no folder of tokens, or {HASHES} there is damaged") from None
    small = [name for name in files if not name.endswith(".bin")]

    def make(folder: Path) -> None:
        for name in small:
            (folder / name).write_bytes(again(address, partial(store.cat_file, f"{root}/{name}")))
            if file_hash(folder / name) != files[name]:
                raise SourceError(f"data.path: {address}/{name} is damaged: it does not match its hash")

    folder = cache_folder(f"remote-{about['sha256'][:24]}", make)
    header = read_json(folder / "header.json")
    if header["format"] != FORMAT:
        raise SourceError(f"data.path: {address} has format {header['format']}; this version reads {FORMAT}")
    train, held_out = (stream(store, f"{root}/{part}.bin", header, part) for part in ("train", "held_out"))
    return Shards(folder, train, held_out, header["documents"], header["bytes"])


def stream(store: Any, place: str, header: dict[str, Any], part: str) -> Any:
    """One of the streams. Raises SourceError if it has another size than the header says."""
    dtype, tokens = np.dtype(header["dtype"]), header["tokens"][part]
    size = again(place, lambda: store.size(place)) if tokens else 0
    if size is not None and size != tokens * dtype.itemsize:
        raise SourceError(f"data.path: {place} has {size:,} bytes, but {tokens * dtype.itemsize:,} were written")
    return Stream(store, place, dtype, tokens)


def open_store(address: str) -> tuple[Any, str]:
    """What reads an address, and the folder in it. Raises SourceError where a library is missing."""
    try:
        import fsspec

        store, root = fsspec.core.url_to_fs(address.rstrip("/"))
    except (ImportError, ValueError) as error:
        raise SourceError(f"data.path: {address} cannot be opened: {error}; install sanbu[cluster]") from None
    return store, root


def again(place: str, read: Callable[[], A]) -> A:
    """What a request gives, tried a few times. Raises SourceError if none succeeds, or there is no such file."""
    for number in range(TRIES):
        try:
            return read()
        except FileNotFoundError:
            raise SourceError(f"data.path: there is no file {place}") from None
        except Exception as error:  # every store has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
        time.sleep(PAUSE * 2**number)
    raise SourceError(f"data.path: {place} cannot be read: {reason}; tried {TRIES} times")
