"""Records in files: JSON, CSV, TSV, Parquet, read by what they contain; .gz may follow the suffix.

JSON is one value a line, one after another, or an array of them, whatever the suffix says. A record is a dictionary;
`where` names its file and line (or row), for error messages.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sanbu.config import nearest
from sanbu.data.reading import SourceError, decode_text, encodable, kind_of_file, readable

Row = dict[str, Any]
Fields = Sequence[str] | None  # the columns that are needed; None for all
Reader = Callable[[Path, IO[bytes], Fields], Iterator[tuple[str, Any]]]
SOMETHING = re.compile(r"[^ \t\r\n]")
NOTES = frozenset(
    ("readme", "license", "licence", "citation", "changelog", "dataset_info", "dataset_infos", "dataset_dict", "state")
)


def rows_of(file: Path, fields: Fields = None) -> Iterator[tuple[str, Row]]:
    """(where, record) of each record of a file. Raises SourceError, in one line, for what is not a record."""
    kind, packed = kind_of_file(file)
    read = READERS.get(kind, read_json)
    with readable(file), gzip.open(file, "rb") if packed else file.open("rb") as stream:
        for where, value in read(file, stream, fields):  # type: ignore[arg-type]
            if not isinstance(value, dict):
                raise SourceError(f"{where}: a JSON object is needed, not {type(value).__name__}")
            yield where, value


def has_records(file: Path) -> bool:
    """Whether a file holds records, by its suffix."""
    return kind_of_file(file)[0] in READERS


def without_notes(found: Sequence[Path]) -> tuple[list[Path], Counter[str]]:
    """The files without those about a data set, such as README.md beside records; and a count of what was left out."""
    notes = {file for file in found if file.name.partition(".")[0].lower() in NOTES}
    folders = {file.parent for file in found if file not in notes and has_records(file)}
    kept = [file for file in found if file not in notes or file.parent not in folders]
    return kept, count_files(len(found) - len(kept), "about the data")


def with_records(found: Sequence[Path], place: str) -> tuple[list[Path], Counter[str]]:
    """The files with records; and a count of what was left out. Raises SourceError when there is none."""
    rest, left_out = without_notes(found)
    kept = [file for file in rest if has_records(file)]
    if not kept:
        names = ", ".join(file.name for file in found[:3])
        raise SourceError(f"data.path: no file in {place!r} has records ({names}); allowed: {', '.join(READERS)}")
    return kept, left_out + count_files(len(rest) - len(kept), "without records by their suffix")


def count_files(number: int, reason: str) -> Counter[str]:
    """So many files left out for a reason."""
    return Counter({f"files {reason}": number} if number else {})


def told(left_out: Mapping[str, int]) -> str:
    """How much was left out and why, for the line that describes data; empty if nothing."""
    return "".join(f", {count:,} left out: {reason}" for reason, count in left_out.items())


# -- formats ----------------------------------------------------------------------------------------------------------


def read_json(file: Path, stream: IO[bytes], fields: Fields) -> Iterator[tuple[str, Any]]:
    """The values of a JSON file: line by line where the first line is a whole value, otherwise of the whole file."""
    number, line = 1, stream.readline()
    while line and not line.strip():
        number, line = number + 1, stream.readline()
    try:
        first = json.loads(decode_text(file, line))
    except (ValueError, RecursionError):
        first = []
    if isinstance(first, list):
        yield from read_values(file, decode_text(file, b"\n" * (number - 1) + line + stream.read()))
        return
    yield f"{file}, line {number}", tidy(first)
    for after, line in enumerate(stream, number + 1):
        if line.strip():
            where = f"{file}, line {after}"
            yield where, parse(where, line)


def parse(where: str, line: bytes) -> Any:
    """The value of a line. Raises SourceError."""
    text = decode_text(where, line)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: {not_json(error)}") from None
    return tidy(value) if "\\u" in text else value


def not_json(error: Exception) -> str:
    """What is wrong with a text that does not read as JSON."""
    return "not JSON" if isinstance(error, json.JSONDecodeError) else "not JSON that can be read: nested too deeply"


def read_values(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The values of a text one after another, and of arrays their elements. Raises SourceError."""
    decode, place, number = json.JSONDecoder().raw_decode, next_value(text, 0), 0
    while place < len(text):
        try:
            value, place = decode(text, place)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", text.count("\n", 0, place) + 1)
            raise SourceError(f"{file}, line {line}: {not_json(error)}") from None
        for each in value if isinstance(value, list) else [value]:
            number += 1
            yield f"{file}, record {number}", tidy(each)
        place = next_value(text, place)


def next_value(text: str, place: int) -> int:
    """The place of the next character that is no white space, or the end."""
    found = SOMETHING.search(text, place)
    return len(text) if found is None else found.start()


def read_table(file: Path, stream: IO[bytes], delimiter: str) -> Iterator[tuple[str, Any]]:
    """The rows of a table of texts whose first row has the names of the columns."""
    csv.field_size_limit(2**31 - 1)  # a field may hold a document
    text = io.StringIO(decode_text(file, stream.read()), newline="")
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    table = csv.DictReader(text, delimiter=delimiter, quoting=quoting)
    names = table.fieldnames or []
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{file}, line 1: two columns are called {twice!r}")
    for row in table:
        if None in row:
            raise SourceError(f"{file}, line {table.line_num}: more than {len(names)} cells, the number of columns")
        yield f"{file}, line {table.line_num}", row


def read_csv(file: Path, stream: IO[bytes], fields: Fields) -> Iterator[tuple[str, Any]]:
    """The rows of a CSV file."""
    return read_table(file, stream, ",")


def read_tsv(file: Path, stream: IO[bytes], fields: Fields) -> Iterator[tuple[str, Any]]:
    """The rows of a TSV file, where quotes are characters like others."""
    return read_table(file, stream, "\t")


def read_parquet(file: Path, stream: IO[bytes], fields: Fields) -> Iterator[tuple[str, Any]]:
    """The rows of a Parquet file; nulls are left out of records."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise SourceError(f"reading {file} needs pyarrow: pip install 'sanbu[hub]'") from None
    try:
        table = pyarrow.parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    except pyarrow.ArrowException as error:
        raise SourceError(f"{file} is not Parquet: {str(error).splitlines()[0]}") from None
    names = table.schema_arrow.names
    wanted = [name for name in names if fields is None or name in fields]
    number = 0
    for batch in table.iter_batches(columns=wanted or names):
        for row in batch.to_pylist():
            number += 1
            found = tidy(without_nulls(row))
            yield f"{file}, row {number}", found if fields is None else dict.fromkeys(names) | found


READERS: dict[str, Reader] = {
    ".json": read_json, ".jsonl": read_json, ".jsonlines": read_json, ".ndjson": read_json, ".jl": read_json,
    ".csv": read_csv, ".tsv": read_tsv, ".parquet": read_parquet,
}  # fmt: skip


# -- values -----------------------------------------------------------------------------------------------------------


def tidy(value: Any) -> Any:
    """A value with texts that UTF-8 can encode, and with bytes that are UTF-8 as text."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, bytes):
        return as_text(value)
    if isinstance(value, list):
        return [tidy(each) for each in value]
    if isinstance(value, dict):
        return {tidy(name): tidy(each) for name, each in value.items()}
    return value


def without_nulls(value: Any) -> Any:
    """A value without nulls in objects: in columns, null is how a field that is not there looks."""
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return value


def as_text(content: bytes) -> str | bytes:
    """Bytes as text where they are UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content


def text_in(row: Row, field: str, where: str) -> str | None:
    """The text of a field; None where it is null. Raises SourceError."""
    if field not in row:
        names = ", ".join(map(str, row))
        raise SourceError(f"{where}: no text field {field!r}; fields: {names}{nearest(field, row)}; set data.field")
    value = row[field]
    if value is not None and not isinstance(value, str):
        kind = "bytes that are not UTF-8" if isinstance(value, bytes) else f"of type {type(value).__name__}"
        raise SourceError(f"{where}: the field {field!r} is {kind}, but must be text")
    return value
