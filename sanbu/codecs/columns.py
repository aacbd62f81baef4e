"""The columns of a table: what a cell may be, and how it is written. A cell is one float64; NaN is a missing cell.

continuous  a number                          integer   a whole number
date        days, or seconds, since 1970      category  the index of its name

Numbers and dates lie on the grid (a + i k) / 10^d of their column, onto which a drawn cell is rounded once. A spike is
a value so frequent that it has a probability of its own beside the density; a column with spikes is called mixed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sanbu.config import Config, SanbuError, nearest

MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "nat", "?"))  # after strip and lower
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
CODE = re.compile(r"[+-]?0\d")  # 02134 is a name, not a number
LARGEST = 1e30  # of a number in a cell: its square is still a float64, and it is a float32
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y")
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M", "T%H:%M:%S", "T%H:%M:%SZ", "T%H:%M:%S.%f")
FORMS = tuple(day + time for time in TIMES for day in DAYS)
Type = Literal["continuous", "integer", "category", "date"]


class Column(Config):
    """One column: its type, and what was seen in the training rows."""

    name: str
    type: Type
    names: tuple[str, ...] = ()  # of a category, by index
    spikes: tuple[float, ...] = ()
    missing: bool = False
    blank: str = ""  # how a missing cell is written
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    deviation: float = 1.0
    decimals: int | None = None  # d of the grid; None: there is no grid
    unit: int = 1  # k of the grid
    form: str = ""  # of a date; a comma: of decimal commas

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The cells that have a probability of their own, without the missing cell."""
        return tuple(map(float, range(len(self.names)))) if self.type == "category" else self.spikes

    @property
    def levels(self) -> int:
        """The number of `values`, and one for the missing cell where there is one."""
        return len(self.values) + self.missing

    @property
    def dense(self) -> bool:
        """Whether there are cells beside the levels: numbers with a density."""
        return self.type != "category"

    @property
    def empty(self) -> bool:
        """Whether every training row lacks the cell."""
        return self.missing and self.levels == 1 and self.low == self.high

    @property
    def constant(self) -> bool:
        """Whether every training row has the same value."""
        return not self.missing and len(self.values) == 1 and self.low == self.high

    @property
    def step(self) -> float:
        """The distance of two neighbours on the grid; 0 without one."""
        return 0.0 if self.decimals is None else self.unit / 10.0**self.decimals

    def describe(self) -> str:
        """The type and the range, in a few words."""
        if self.type == "category":
            shown = ", ".join(self.names[:4]) + (", ..." if len(self.names) > 4 else "")
            return f"category of {len(self.names)}: {shown}" + (", missing" if self.missing else "")
        mixed = f"mixed {self.type}" if self.spikes else self.type
        text = f"{mixed}, {self.write(self.low)} to {self.write(self.high)}"
        if self.spikes:
            spikes = [self.write(value) for value in self.spikes[:4]]
            text += f", spikes {', '.join(spikes)}" + (", ..." if len(self.spikes) > 4 else "")
        return text + (", missing" if self.missing else "")

    # -- cells --------------------------------------------------------------------------------------------------------

    def round(self, cells: np.ndarray) -> np.ndarray:
        """Cells on the grid of the column."""
        if self.decimals is None or self.type == "category":
            return cells
        scale = 10.0**self.decimals
        first = np.round(self.low * scale)
        number = np.round((cells * scale - first) / self.unit)
        return (number * self.unit + first) / scale

    def read(self, cell: float) -> int | float | str | None:
        """A cell as a person reads it; None if it is missing."""
        if np.isnan(cell):
            return None
        if self.type == "category":
            return self.names[int(cell)]
        if self.type == "date":
            return write_date(cell, self.form)
        return round(cell) if self.type == "integer" else float(cell)

    def write(self, cell: float) -> str:
        """A cell as text in a file."""
        value = self.read(cell)
        if value is None or isinstance(value, str):
            return self.blank if value is None else value
        text = repr(value) if self.decimals is None else f"{value:.{self.decimals}f}"
        return text.replace(".", ",") if self.form == "," else text

    def cells(self, values: np.ndarray, where: Sequence[str] | None = None) -> np.ndarray:
        """Cells of texts or numbers; a name that training did not have is missing. where: the place of each."""
        if values.dtype != object and self.type != "category":
            return values.astype(np.float64)
        known = {name: float(code) for code, name in enumerate(self.names)}
        texts = [text_of(value) for value in values.tolist()]
        if self.type == "category":
            return np.array([known.get(text, np.nan) for text in texts])
        found = [None if is_missing(text) else self.number(text) for text in texts]
        for place, (text, cell) in enumerate(zip(texts, found, strict=True)):
            if cell is None and not is_missing(text):
                line = f"{where[place]}: " if where else ""
                raise SanbuError(f"{line}{self.name!r} has {text!r}, {self.wanted()}")
        return np.array([np.nan if cell is None else cell for cell in found], dtype=np.float64)

    def cell(self, text: str) -> float:
        """One cell of a condition. Raises SanbuError for a value that the column cannot have."""
        if is_missing(text) and not (self.type == "category" and text in self.names):
            if not self.missing:
                raise SanbuError(f"{self.name}: given {text!r}, but no training row lacks this cell")
            return float("nan")
        if self.type == "category":
            if text not in self.names:
                shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
                raise SanbuError(f"{self.name}: given {text!r}, allowed: {shown}{nearest(text, self.names)}")
            return float(self.names.index(text))
        found = self.number(text)
        if found is None:
            raise SanbuError(f"{self.name}: given {text!r}, {self.wanted()}")
        if self.type == "integer" and found != np.round(found):
            raise SanbuError(f"{self.name}: given {text!r}, but a whole number is needed")
        return found

    def number(self, text: str) -> float | None:
        """The number of a text; None if it is none."""
        if self.type == "date":
            return date_of(text, self.form)
        return number_of(text, self.form == ",")

    def wanted(self) -> str:
        """What a text of this column must be."""
        return f"but a date like {self.form} is needed" if self.type == "date" else "but a number is needed"


# -- texts ------------------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """A value as stripped text: a whole float without its point, nothing for NaN; so typed and plain files agree."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return "" if value is None or value != value else str(value).strip()


def is_missing(text: str) -> bool:
    """Whether a text stands for a missing cell."""
    return text.strip().lower() in MISSING


def number_of(text: str, comma: bool = False) -> float | None:
    """The number that a text reads as, with a decimal comma where the column has them; None if it is none."""
    plain = text.replace(",", ".") if comma else text
    if not NUMBER.fullmatch(plain) or CODE.match(plain):
        return None
    return float(plain)


def date_of(text: str, form: str) -> float | None:
    """Days since 1970 of a date, seconds since 1970 of a date with a time; None if it has another form."""
    try:
        moment = datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return None
    since = moment - EPOCH
    return float(since.days) if form in DAYS else since / timedelta(seconds=1)


def write_date(cell: float, form: str) -> str:
    """A date in its form; beyond the years 1 to 9999 the nearest one that there is."""
    unit = timedelta(days=1) if form in DAYS else timedelta(seconds=1)
    first, last = (each.replace(tzinfo=UTC) for each in (datetime.min, datetime.max))
    least, most = (first - EPOCH) / unit, (last - EPOCH) // unit
    moment = EPOCH + unit * min(max(float(cell), least), most)
    return moment.strftime(form.replace("%Y", f"{moment.year:04d}"))
