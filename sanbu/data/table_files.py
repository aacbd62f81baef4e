"""Tables in files and in memory: CSV and TSV (delimiter and encoding found), Parquet, Excel, JSON, scikit-learn's own.

A frame holds the columns as they are: texts, or numbers as float64 with NaN for what is missing.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sanbu.codecs.columns import number_of
from sanbu.config import SanbuError, nearest
from sanbu.data.reading import SourceError, arrow_table, decode_text, kind_of_file, read_unzipped, readable
from sanbu.data.record_files import rows_of
from sanbu.files import nearest_file

DELIMITERS = ",;\t|"
SETS = {  # scikit-learn's own: the function that loads it, and its target
    "iris": ("load_iris", "species"),
    "wine": ("load_wine", "cultivar"),
    "breast-cancer": ("load_breast_cancer", "diagnosis"),
    "diabetes": ("load_diabetes", "progression"),
    "digits": ("load_digits", "digit"),
}


@dataclass(frozen=True)
class Frame:
    """Named columns of equal length: object arrays of texts, or float64. places: where each row stands."""

    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    places: Sequence[str]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: np.ndarray) -> Frame:
        """Some of the rows."""
        places = [self.places[row] for row in rows.tolist()]
        return Frame(self.names, tuple(column[rows] for column in self.columns), places)

    def column(self, name: str) -> np.ndarray:
        """The column of that name. Raises SanbuError with the nearest match."""
        if name not in self.names:
            allowed = ", ".join(self.names[:20])
            raise SanbuError(f"there is no column {name!r}; columns: {allowed}{nearest(name, self.names)}")
        return self.columns[self.names.index(name)]


def is_set(path: str) -> bool:
    """Whether a path names a table that comes with scikit-learn, and no file."""
    return path in SETS and not Path(path).exists()


def read_frame(path: str) -> Frame:
    """The table of a path or of a name of SETS; read once as long as its file stays as it is. Raises SourceError."""
    if is_set(path):
        return read_again(path, 0, 0)
    place = Path(path)
    if not place.is_file():
        known = f"; tables without a file: {', '.join(SETS)}"
        raise SourceError(f"data.path: there is no file {path!r}{nearest_file(path, SETS)}{known}")
    about = place.stat()
    return read_again(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4)
def read_again(path: str, changed: int, size: int) -> Frame:
    """The table of a path at a state of its file."""
    if is_set(path):
        return read_set(path)
    kind, _ = kind_of_file(Path(path))
    if kind not in READERS:
        raise SourceError(f"data.path: {path!r} is no table by its suffix; allowed: {', '.join(READERS)}")
    return checked(READERS[kind](Path(path)), path)


def checked(frame: Frame, path: str) -> Frame:
    """The frame. Raises SourceError for one without rows, or with names that are empty or there twice."""
    check_names(frame.names, path)
    if "" in frame.names:
        raise SourceError(f"{path}: column {frame.names.index('') + 1} has no name")
    if not len(frame):
        raise SourceError(f"{path}: there are no rows")
    return frame


def check_names(names: Sequence[str], source: str) -> None:
    """Raise SourceError if two columns have the same name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{source}: two columns are called {twice!r}; give each a name of its own")


# -- formats ----------------------------------------------------------------------------------------------------------


def read_delimited(file: Path) -> Frame:
    """A CSV or TSV file, with the delimiter that gives its lines the same number of cells."""
    csv.field_size_limit(2**31 - 1)
    text = decode_text(file, read_unzipped(file))
    delimiter = find_delimiter(text, "\t" if kind_of_file(file)[0] == ".tsv" else ",")
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    names = [name.strip() for name in next(table, [])]
    rows, places = [], []
    for row in table:
        if not any(cell.strip() for cell in row) and len(names) > 1:
            continue
        if len(row) != len(names):
            raise SourceError(f"{file}, line {table.line_num}: {len(row)} cells, but there are {len(names)} columns")
        rows.append([cell.strip() for cell in row])
        places.append(f"{file}, line {table.line_num}")
    if names and all(number_of(name) is not None for name in names):
        raise SourceError(f"{file}, line 1: numbers where the names of the columns should be; add a line of names")
    columns = [np.array(column, dtype=object) for column in zip(*rows, strict=True)]
    return Frame(tuple(names), tuple(columns), places)


def find_delimiter(text: str, usual: str) -> str:
    """The delimiter with which the first lines have the most cells, the same number in each."""
    lines = "\n".join(text.splitlines()[:50])

    def cells(delimiter: str) -> tuple[int, int]:
        counts = Counter(len(row) for row in csv.reader(io.StringIO(lines), delimiter=delimiter) if row)
        most, often = counts.most_common(1)[0] if counts else (1, 0)
        return (often if most > 1 else 0, most)

    found = max([usual, *DELIMITERS.replace(usual, "")], key=cells)
    return found if cells(found)[1] > 1 else usual


def read_parquet(file: Path) -> Frame:
    """A Parquet file."""
    table = arrow_table(file, "tables")
    return frame_of({name: plain_list(table[name]) for name in table.column_names}, str(file))


def plain_list(column: Any) -> Any:
    """A column of Arrow as numbers, or as a list."""
    kind = str(column.type)
    numeric = kind.startswith(("int", "uint", "float", "double", "halffloat", "decimal"))
    return column.cast("float64").to_numpy(zero_copy_only=False) if numeric else column.to_pylist()


def read_excel(file: Path) -> Frame:
    """The first sheet of an Excel file."""
    try:
        import openpyxl
    except ImportError:
        raise SourceError(f"reading {file} needs openpyxl: pip install 'sanbu[tables]'") from None
    with readable(file):
        rows = list(openpyxl.load_workbook(file, read_only=True, data_only=True).active.values)
    names = ["" if name is None else str(name).strip() for name in (rows or [()])[0]]
    columns = list(zip(*rows[1:], strict=True)) or [()] * len(names)
    made = [as_column(list(column), name) for name, column in zip(names, columns, strict=True)]
    places = [f"{file}, row {number}" for number in range(2, len(rows) + 1)]
    return Frame(tuple(names), tuple(made), places)


def read_records(file: Path) -> Frame:
    """Records of a JSON file; a field that a record lacks is missing."""
    records = [record for _, record in rows_of(file)]
    names = list(dict.fromkeys(name for record in records for name in record))
    return frame_of({name: [record.get(name) for record in records] for name in names}, str(file))


def read_set(name: str) -> Frame:
    """A table that comes with scikit-learn."""
    from sklearn import datasets

    load, target = SETS[name]
    found = getattr(datasets, load)()
    titles = [str(title).replace(" (cm)", "") for title in found.feature_names]
    data = dict(zip(titles, found.data.T, strict=True))
    names = getattr(found, "target_names", None)
    labels = [str(names[label]) for label in found.target] if names is not None else found.target.astype(float)
    return frame_of({**data, target: labels}, name)


Reader = Callable[[Path], Frame]
READERS: dict[str, Reader] = {
    ".csv": read_delimited, ".tsv": read_delimited, ".txt": read_delimited, ".data": read_delimited,
    ".parquet": read_parquet, ".xlsx": read_excel, ".json": read_records, ".jsonl": read_records,
}  # fmt: skip


# -- memory -----------------------------------------------------------------------------------------------------------


def frame_of(columns: Mapping[str, Any], source: str) -> Frame:
    """A frame of named columns in memory. Raises SanbuError for columns of different lengths."""
    made = {str(name): as_column(values, str(name)) for name, values in columns.items()}
    lengths = {name: len(column) for name, column in made.items()}
    if len(set(lengths.values())) > 1:
        raise SanbuError(f"{source}: the columns have different lengths: {lengths}")
    rows = next(iter(lengths.values()), 0)
    places = [f"{source}, row {number}" for number in range(1, rows + 1)]
    return Frame(tuple(made), tuple(made.values()), places)


def as_column(values: Any, name: str) -> np.ndarray:
    """Numbers as float64, everything else as texts; None, NaN and NaT are missing. Raises SanbuError for more axes."""
    array = values if isinstance(values, np.ndarray) else getattr(values, "to_numpy", lambda: None)()
    if array is not None and array.ndim != 1:
        raise SanbuError(f"column {name!r} has {array.ndim} axes; a column has one")
    if array is not None and array.dtype.kind in "iuf":
        return array.astype(np.float64)
    if array is not None and array.dtype.kind == "M":
        return as_texts(dates_as_texts(array.astype("datetime64[us]")))
    items = list(values)
    if all(item is None or (isinstance(item, (int, float)) and not isinstance(item, bool)) for item in items):
        return np.array([np.nan if item is None else item for item in items], dtype=np.float64)
    return as_texts(items)


def dates_as_texts(moments: np.ndarray) -> list[str]:
    """Moments in the shortest form that keeps them all: days, seconds or microseconds."""
    there = moments[~np.isnat(moments)]
    unit = next(unit for unit in ("D", "s", "us") if (there.astype(f"datetime64[{unit}]") == there).all())
    texts = np.datetime_as_string(moments.astype(f"datetime64[{unit}]")).tolist()
    return ["" if text == "NaT" else text for text in texts]


def as_texts(items: Iterable[Any]) -> np.ndarray:
    """Texts of any values, the empty text for what is missing."""
    return np.array([text_or_nothing(item) for item in items], dtype=object)


def text_or_nothing(item: Any) -> str:
    """A value as text; nothing for None and for what is unequal to itself (NaN, NaT)."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(item, float):
        return "" if np.isnan(item) else str(int(item)) if item.is_integer() else repr(item)
    return item.isoformat(sep=" ") if hasattr(item, "hour") else str(item)
