"""Bytes and text of a file, with errors of one line."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sanbu.config import SanbuError


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


def arrow_table(file: Path, extra: str = "hub") -> Any:
    """A table of pyarrow. extra: what to install where pyarrow is missing. Raises SourceError."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise SourceError(f"reading {file} needs pyarrow: pip install 'sanbu[{extra}]'") from None
    try:
        return pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(f"{file} is not Parquet: {str(error).splitlines()[0]}") from None


def kind_of_file(file: Path) -> tuple[str, bool]:
    """The suffix that gives the format, and whether .gz follows it."""
    names = [suffix.lower() for suffix in file.suffixes]
    packed = names[-1:] == [".gz"]
    return "".join((names[:-1] if packed else names)[-1:]), packed


def read_file(file: Path) -> bytes:
    """The bytes of a file. Raises SourceError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from None


def read_unzipped(file: Path) -> bytes:
    """The bytes of a file, decompressed when it ends with .gz. Raises SourceError."""
    with readable(file):
        return gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()


def decode_text(file: Path | str, content: bytes) -> str:
    """The text of a file, or of a part of it. Raises SourceError when it is not UTF-8 text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}") from None
    if "\0" in text:
        raise SourceError(f"{file} is not text: byte {content.index(0)} is zero")
    return text


def encodable(text: str) -> str:
    """The text with characters that UTF-8 cannot encode replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def parquet_below(folder: Path) -> list[Path]:
    """The Parquet files in a folder and the folders below it, sorted."""
    return sorted(path for path in folder.rglob("*.parquet") if path.is_file())
