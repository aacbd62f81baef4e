"""Sources of text: documents from files, folders, records, the Hugging Face hub, or the installed Python."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sanbu.config import SanbuError, nearest
from sanbu.files import fingerprint as hash_files


class SourceError(SanbuError):
    """Data that cannot be read."""


@contextmanager
def readable(file: Path | str) -> Iterator[None]:
    """Turn what a library raises for a damaged or unsupported file into a SourceError that names the file."""
    try:
        yield
    except (SanbuError, FileNotFoundError, PermissionError, GeneratorExit):
        raise
    except Exception as error:  # a damaged file makes its reader fail in any way
        text = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise SourceError(f"{file} is damaged or not supported: {text}") from None


def documents(path: str, field: str = "text") -> Iterator[str]:
    """Every document of a source, in order, with characters that UTF-8 cannot encode replaced. Raises SourceError."""
    if path == "python":
        from sanbu.data.builtin.stdlib_docs import documentation

        found: Iterator[str] = documentation()
    elif path.startswith("hub:"):
        found = read_hub(path.removeprefix("hub:"), field)
    else:
        found = (text for file in files(path) for text in read_documents(file, field))
    for text in found:
        if text:
            yield text if text.isascii() else text.encode("utf-8", "replace").decode()


def fingerprint(path: str) -> str:
    """A hash of the content of a source; for the hub, of its name."""
    if path == "python":
        from sanbu.data.builtin.stdlib_docs import version

        return hash_files((), version())
    if path.startswith("hub:"):
        return hash_files((), path)
    return hash_files(files(path))


def files(path: str) -> list[Path]:
    """The files of a path, sorted by name. Raises SourceError when there is none."""
    place = Path(path)
    if place.is_file():
        return [place]
    if not place.is_dir():
        siblings = [str(other) for other in place.parent.iterdir()] if place.parent.is_dir() else []
        raise SourceError(f"data.path: there is no file or folder {path!r}{nearest(path, siblings)}")
    found, _ = walk(place)
    if not found:
        raise SourceError(f"data.path: the folder {path!r} has no file; hidden files are ignored")
    return found


def walk(place: Path) -> tuple[list[Path], Counter[str]]:
    """The files of a folder and of the folders in it, sorted by name, and a count of what was left out.

    A link to a folder elsewhere is followed, once for each folder it leads to; one to a folder within this one, or
    around it, is left out, and so are hidden files and broken links. Raises SourceError for a folder that cannot be
    read.
    """
    root = os.path.realpath(place)
    seen: set[str] = set()
    skipped: Counter[str] = Counter()
    found: list[Path] = []

    def fail(error: OSError) -> None:
        raise SourceError(f"data.path: {error.filename} cannot be read: {error.strerror}") from None

    for folder, folders, names in os.walk(place, onerror=fail, followlinks=True):
        folders.sort()
        for name in list(folders):
            problem = left_out(Path(folder, name), root, seen)
            if problem:
                folders.remove(name)
                skipped[problem] += 1
        for name in names:
            file = Path(folder, name)
            if hidden((name,)):
                skipped["hidden"] += 1
            elif file.is_file():
                found.append(file)
            else:
                skipped["broken links or no files"] += 1
    return sorted(found), skipped


def left_out(folder: Path, root: str, seen: set[str]) -> str:
    """Why a folder below `root` is not entered; nothing if it is. seen: real places of the links followed so far."""
    if hidden((folder.name,)):
        return "hidden folders"
    if not folder.is_symlink():
        return ""
    real = os.path.realpath(folder)
    if within(real, root) or within(root, real) or within(os.path.realpath(folder.parent), real) or real in seen:
        return "links to folders read already"
    seen.add(real)
    return ""


def within(inner: str, outer: str) -> bool:
    """Whether a real path is that of a folder, or of something in it."""
    return f"{inner}{os.sep}".startswith(f"{outer.rstrip(os.sep)}{os.sep}")


def hidden(parts: Sequence[str]) -> bool:
    """Whether a file is hidden, or what macOS adds to archives, by the parts of its name."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def stamp(found: Sequence[Path]) -> str:
    """The state of files: their names, sizes and times of change; other after any change."""
    digest = hashlib.sha256()
    for file in found:
        try:
            about = file.stat()
        except OSError:
            continue  # it is gone again: another state
        digest.update(f"{file}\0{about.st_size}\0{about.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_file(file: Path) -> bytes:
    """The bytes of a file. Raises SourceError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from None


def read_documents(file: Path, field: str) -> Iterator[str]:
    """The documents of a file, whose suffix gives the format; .gz may follow it."""
    names = [suffix.lower() for suffix in file.suffixes]
    packed = bool(names) and names[-1] == ".gz"
    kind = names[-2] if packed and len(names) > 1 else (names[-1] if names else "")
    with readable(file), gzip.open(file, "rb") if packed else file.open("rb") as stream:
        if kind == ".parquet":
            yield from read_parquet(file, stream, field)  # type: ignore[arg-type]
        elif kind in (".jsonl", ".ndjson"):
            yield from read_json_lines(file, stream, field)  # type: ignore[arg-type]
        else:
            yield decode_text(file, stream.read())


def read_unzipped(file: Path) -> bytes:
    """The bytes of a file, decompressed when it ends with .gz. Raises SourceError."""
    with readable(file):
        return gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()


def decode_text(file: Path, content: bytes) -> str:
    """The text of a file. Raises SourceError when it is not UTF-8 text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}") from None
    if "\0" in text:
        raise SourceError(f"{file} is not text: byte {content.index(0)} is zero")
    return text


def read_json_lines(file: Path, stream: IO[bytes], field: str) -> Iterator[str]:
    """The documents of a JSONL file: one record per line."""
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise SourceError(f"{file}, line {number}: not JSON") from None
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            fields = list(record) if isinstance(record, dict) else []
            hint = nearest(field, fields)
            raise SourceError(
                f"{file}, line {number}: no text field {field!r}; fields: {', '.join(fields)}{hint}; set data.field"
            )
        yield record[field]


def read_parquet(file: Path, stream: IO[bytes], field: str) -> Iterator[str]:
    """The documents of a Parquet file: one per row."""
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


def read_hub(name: str, field: str) -> Iterator[str]:
    """The documents of the training split of a Hugging Face data set, streamed. name: NAME or NAME:CONFIG."""
    try:
        import datasets
    except ImportError:
        raise SourceError(f"data.path=hub:{name} needs the package datasets: pip install 'sanbu[hub]'") from None
    dataset, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(dataset, config or None, split="train", streaming=True)
    except Exception as error:  # the library raises many types of errors when it cannot load a data set
        raise SourceError(f"data.path: cannot load the data set {name!r}: {str(error).splitlines()[0]}") from None
    for row in rows:
        if field not in row:
            raise SourceError(
                f"hub:{name}: no field {field!r}; fields: {', '.join(row)}{nearest(field, row)}; set data.field"
            )
        yield row[field]
