"""The schema of a table, found in its rows: types from all rows, ranges, names and spikes from the training rows.

A column of numbers is integer or continuous, of dates in one form date, of texts category. types: what a person wants
instead, by name; "drop" leaves a column out. Every problem is one line that names the column and what to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from sanbu.codecs.columns import FORMS, LARGEST, Column, Type, date_of, is_missing, number_of, text_of
from sanbu.config import SanbuError
from sanbu.data.table_files import Frame

Wanted = Literal["continuous", "integer", "category", "date", "drop"]
MOST_NAMES = 1000  # of a category
SPIKE, SPIKE_ROWS = 0.01, 20  # a value that is more frequent than both is a spike
DIGITS = 10  # decimals of a grid at most
GRID_VALUES = 16  # different values that a grid wider than its decimals needs
LABELS = 10  # different whole numbers of a target that are classes, at most


def infer(frame: Frame, train: np.ndarray, types: Mapping[str, Wanted], target: str = "") -> tuple[Column, ...]:
    """The columns of a frame. train: its training rows. Raises SanbuError, in one line, for what fits no type."""
    for name in [*types, *([target] if target else [])]:
        frame.column(name)
    if target and types.get(target) == "drop":
        raise SanbuError(f"data.types: {target!r} is the target and cannot be dropped")
    kept = [name for name in frame.names if types.get(name) != "drop"]
    columns = [infer_column(frame, name, train, types.get(name), name == target) for name in kept]
    if len(columns) < 2:
        raise SanbuError(f"data.types: {len(columns)} column is left; a table needs at least two")
    return tuple(columns)


def infer_column(frame: Frame, name: str, train: np.ndarray, wanted: Wanted | None, target: bool) -> Column:
    """One column."""
    values = frame.column(name)
    found, form, numbers = type_of(values, name, frame.places, wanted)
    if target and wanted is None and found == "integer" and few(numbers):
        found = "category"
    if found == "category":
        return category(values, name, train)
    return numeric(numbers, name, train, found, form, blank_of(values, train))


def few(numbers: np.ndarray) -> bool:
    """Whether whole numbers are so few that they are labels."""
    return len(np.unique(numbers[~np.isnan(numbers)])) <= LABELS


def type_of(
    values: np.ndarray, name: str, places: Sequence[str], wanted: Wanted | None
) -> tuple[Type, str, np.ndarray]:
    """The type, the form of its texts, and its numbers."""
    if wanted == "category":
        return "category", "", np.zeros(0)
    texts = None if values.dtype != object else [text_of(value) for value in values.tolist()]
    if texts is None:
        if wanted == "date":
            raise SanbuError(f"data.types: {name!r} holds numbers, and a date must be text such as 2024-12-31")
        return number_type(values, wanted), "", within(values, name, places)
    there = [text for text in texts if not is_missing(text)]
    comma = any("," in text for text in there) and all(map(comma_number, there))
    numbers = [None if is_missing(text) else number_of(text, comma) for text in texts]
    good = sum(number is not None for number in numbers)
    if there and good == len(there) and wanted != "date":
        array = as_numbers(numbers)
        return number_type(array, wanted), "," if comma else "", within(array, name, places)
    form = form_of(there)
    if form:
        dates = [None if is_missing(text) else date_of(text, form) for text in texts]
        return "date", form, as_numbers(dates)
    if wanted or (2 * good > len(there) and len(set(there)) > 2 * LABELS):
        refuse_mixture(texts, numbers, name, places, wanted)
    return "category", "", np.zeros(0)


def as_numbers(found: list[float | None]) -> np.ndarray:
    """Numbers with NaN for None."""
    return np.array([np.nan if number is None else number for number in found], dtype=np.float64)


def comma_number(text: str) -> bool:
    """Whether a text is a number with a decimal comma, or a whole number."""
    return "." not in text and number_of(text, True) is not None


def number_type(numbers: np.ndarray, wanted: Wanted | None) -> Type:
    """integer where all numbers are whole, unless another type is wanted."""
    if wanted in ("continuous", "integer"):
        return wanted
    there = numbers[~np.isnan(numbers)]
    whole = (there == np.round(there)) & (np.abs(there) < 2**53)
    return "integer" if whole.all() else "continuous"


def within(numbers: np.ndarray, name: str, places: Sequence[str]) -> np.ndarray:
    """The numbers. Raises SanbuError for one that is infinite or beyond LARGEST."""
    beyond = np.flatnonzero(np.abs(numbers) > LARGEST)
    if len(beyond):
        place = beyond[0]
        raise SanbuError(
            f"{places[place]}: {name!r} has {numbers[place]:g}, allowed: -{LARGEST:g} to {LARGEST:g};"
            f' correct the cell, or types={{"{name}":"drop"}}'
        )
    return numbers


def refuse_mixture(
    texts: list[str], numbers: list[float | None], name: str, places: Sequence[str], wanted: Wanted | None
) -> None:
    """Raise SanbuError for the first text among numbers, or the first that is not what is wanted."""
    what = "a date" if wanted == "date" else "a number, as the others are" if wanted is None else "a number"
    for place, (text, number) in enumerate(zip(texts, numbers, strict=True)):
        if not is_missing(text) and (number is None or wanted == "date"):
            raise SanbuError(
                f"{places[place]}: {name!r} has {text!r}, which is not {what};"
                f' correct the cell, or types={{"{name}":"category"}}'
            )


def form_of(texts: list[str]) -> str:
    """The form of date that all texts have; none if there is none."""
    possible = [form for form in FORMS if texts and date_of(texts[0], form) is not None]
    return next((form for form in possible if all(date_of(text, form) is not None for text in texts)), "")


def blank_of(values: np.ndarray, train: np.ndarray) -> tuple[bool, str]:
    """Whether training rows miss the cell, and how it is usually written."""
    if values.dtype != object:
        return bool(np.isnan(values[train]).any()), ""
    missing = Counter(text.strip() for text in values[train].tolist() if is_missing(text))
    return bool(missing), missing.most_common(1)[0][0] if missing else ""


def category(values: np.ndarray, name: str, train: np.ndarray) -> Column:
    """A column of names: numbers in their order, other names in that of the alphabet."""
    texts = list(map(text_of, values[train].tolist()))
    missing, blank = blank_of(values, train)
    names = sorted({text for text in texts if not is_missing(text)}, key=in_order)
    if len(names) > MOST_NAMES:
        raise SanbuError(
            f"{name!r} has {len(names):,} different texts in {len(train):,} rows, allowed: {MOST_NAMES:,};"
            f' leave it out with types={{"{name}":"drop"}}'
        )
    return Column(name=name, type="category", names=tuple(names), missing=missing, blank=blank)


def in_order(text: str) -> tuple[bool, float, str]:
    """A key that sorts numbers before other texts."""
    number = number_of(text)
    return number is None, number or 0.0, text


def numeric(
    numbers: np.ndarray, name: str, train: np.ndarray, found: Type, form: str, blank: tuple[bool, str]
) -> Column:
    """A column of numbers or dates."""
    there = numbers[train][~np.isnan(numbers[train])]
    if not len(there):
        return Column(name=name, type=found, form=form, missing=True, blank=blank[1], decimals=0)
    decimals, unit = grid_of(there)
    values, counts = np.unique(there, return_counts=True)
    frequent = counts > max(SPIKE * len(train), SPIKE_ROWS)
    spikes = values[frequent] if len(values) > 1 else values
    return Column(
        name=name, type=found, form=form, spikes=tuple(spikes.tolist()), missing=blank[0], blank=blank[1],
        low=float(there.min()), high=float(there.max()), mean=float(there.mean()),
        deviation=float(there.std()) or 1.0, decimals=decimals, unit=unit,
    )  # fmt: skip


def grid_of(numbers: np.ndarray) -> tuple[int | None, int]:
    """The decimals and the unit of the grid on which all numbers lie; (None, 1) without one."""
    for decimals in range(DIGITS + 1):
        scaled = numbers * 10.0**decimals
        if np.abs(scaled).max() > 2**53:
            break
        whole = np.round(scaled)
        if (whole / 10.0**decimals == numbers).all():
            different = np.unique(whole)
            gaps = np.diff(different).astype(np.int64)
            unit = int(np.gcd.reduce(gaps)) if len(different) >= GRID_VALUES else 1
            return decimals, max(1, unit)
    return None, 1
