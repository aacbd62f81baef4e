"""Where text comes from: documents out of files, folders, records, a hub, or the installed Python itself."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sanbu.config import SanbuError, nearest
from sanbu.files import fingerprint as hash_files


class SourceError(SanbuError):
    """Text that cannot be read."""


def documents(path: str, field: str = "text") -> Iterator[str]:
    """Every document of a source, in order, as text that UTF-8 can hold. Raises SourceError in one line."""
    if path == "python":
        from sanbu.data.builtin.stdlib_docs import documentation

        found: Iterator[str] = documentation()
    elif path.startswith("hub:"):
        found = hub(path.removeprefix("hub:"), field)
    else:
        found = (text for file in files(path) for text in read(file, field))
    for text in found:
        if text:
            yield text if text.isascii() else text.encode("utf-8", "replace").decode()


def fingerprint(path: str) -> str:
    """A hash of what a source holds; for a hub, of its name."""
    if path == "python":
        from sanbu.data.builtin.stdlib_docs import version

        return hash_files((), version())
    if path.startswith("hub:"):
        return hash_files((), path)
    return hash_files(files(path))


def files(path: str) -> list[Path]:
    """The files of a path, in order of name. Raises SourceError when there is none."""
    place = Path(path)
    if place.is_file():
        return [place]
    if not place.is_dir():
        siblings = [str(other) for other in place.parent.iterdir()] if place.parent.is_dir() else []
        raise SourceError(f"data.path: there is no file or folder {path!r}{nearest(path, siblings)}")
    found = sorted(
        file
        for file in place.rglob("*")
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(place).parts)
    )
    if not found:
        raise SourceError(f"data.path: the folder {path!r} holds no file")
    return found


def read(file: Path, field: str) -> Iterator[str]:
    """The documents of one file, by the name it ends with; gzip inside any of them."""
    names = [suffix.lower() for suffix in file.suffixes]
    packed = bool(names) and names[-1] == ".gz"
    kind = names[-2] if packed and len(names) > 1 else (names[-1] if names else "")
    try:
        with gzip.open(file, "rb") if packed else file.open("rb") as stream:
            if kind == ".parquet":
                yield from parquet(file, stream, field)  # type: ignore[arg-type]
            elif kind in (".jsonl", ".ndjson"):
                yield from json_lines(file, stream, field)  # type: ignore[arg-type]
            else:
                yield plain(file, stream.read())
    except (gzip.BadGzipFile, EOFError) as error:
        raise SourceError(f"{file} is not whole gzip: {error}") from None


def unpacked(file: Path) -> bytes:
    """The bytes of a file, gzip or not. Raises SourceError."""
    try:
        return gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()
    except (gzip.BadGzipFile, EOFError) as error:
        raise SourceError(f"{file} is not whole gzip: {error}") from None


def plain(file: Path, content: bytes) -> str:
    """A text file is one document."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}") from None
    if "\0" in text:
        raise SourceError(f"{file} is not text: it holds a zero byte at {content.index(0)}")
    return text


def json_lines(file: Path, stream: IO[bytes], field: str) -> Iterator[str]:
    """A record a line."""
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise SourceError(f"{file}, line {number}: not JSON") from None
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            fields = list(record) if isinstance(record, dict) else []
            hint = nearest(field, fields)
            raise SourceError(
                f"{file}, line {number}: no text field {field!r}; fields: {', '.join(fields)}{hint}; set data.field"
            )
        yield record[field]


def parquet(file: Path, stream: IO[bytes], field: str) -> Iterator[str]:
    """A record a row, a row group at a time."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise SourceError(f"reading {file} needs pyarrow: pip install 'sanbu[hub]'") from None
    try:
        table = pyarrow.parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    except pyarrow.ArrowException as error:
        raise SourceError(f"{file} is not Parquet: {str(error).splitlines()[0]}") from None
    if field not in table.schema_arrow.names:
        names = table.schema_arrow.names
        raise SourceError(
            f"{file}: no field {field!r}; fields: {', '.join(names)}{nearest(field, names)}; set data.field"
        )
    for batch in table.iter_batches(columns=[field]):
        yield from (text for text in batch.column(0).to_pylist() if text is not None)


def hub(name: str, field: str) -> Iterator[str]:
    """The training split of a Hugging Face data set, streamed; NAME or NAME:CONFIG."""
    try:
        import datasets
    except ImportError:
        raise SourceError(f"data.path=hub:{name} needs the extra: pip install 'sanbu[hub]'") from None
    dataset, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(dataset, config or None, split="train", streaming=True)
    except Exception as error:  # the library raises many kinds for one cause: it cannot be had
        raise SourceError(f"data.path: cannot load the data set {name!r}: {str(error).splitlines()[0]}") from None
    for row in rows:
        if field not in row:
            raise SourceError(
                f"hub:{name}: no field {field!r}; fields: {', '.join(row)}{nearest(field, row)}; set data.field"
            )
        yield row[field]
