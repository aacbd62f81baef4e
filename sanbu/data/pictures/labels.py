"""Labels as class numbers, by one rule for every source.

Labels may be whole numbers (of any type), names, truth values, one column [N, 1], or one-hot rows [N, K]. The classes
are the different labels in order: numbers by value, names by their letters, names that are all whole numbers by value.
Where the labels are exactly 0 .. K - 1, the classes have no other names; otherwise each class keeps its label as its
name, so labels that begin at 1 or have gaps lose nothing.

In folders the class of a picture is the first folder below the source, as for torchvision's ImageFolder, after
folders that hold all pictures and folders that name a split (train, val, test, ...).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sanbu.data.reading import SourceError

SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation"))
MANY = 10_000  # classes; more, with about one picture each, are ids
FORMS = "allowed: whole numbers from 0, names, or one-hot rows"

Labels = tuple[np.ndarray, tuple[str, ...]]  # class numbers int64 [N], and the names of the classes


def class_numbers(where: str, labels: Sequence[Any] | np.ndarray, count: int) -> Labels:
    """The classes of `count` pictures. Raises SourceError, which names the labels by `where`."""
    values = as_column(where, labels)
    if len(values) != count:
        raise SourceError(f"{where}: {len(values)} labels for {count} pictures")
    if values.dtype.kind == "U":
        names, numbers = by_name(where, values)
    else:
        names, numbers = by_value(where, values)
    if len(names) > MANY and len(names) > count // 2:
        raise SourceError(f"{where}: {len(names)} different labels for {count} pictures; these are ids, not classes")
    unnamed = values.dtype.kind != "U" and names == tuple(map(str, range(len(names))))
    return numbers.astype(np.int64), () if unnamed else names


def as_column(where: str, labels: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Labels as one axis of integers or of texts."""
    values = labels if isinstance(labels, np.ndarray) else listed(where, labels)
    if values.ndim > 1 and len(values) and values.size == len(values):
        values = values.reshape(len(values))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "biufU" or values.ndim not in (1, 2):
        raise SourceError(f"{where}: labels of type {values.dtype} and shape {list(values.shape)}; {FORMS}")
    if values.ndim == 2:
        return from_one_hot(where, values)
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)) | (abs(values) >= 2**53))
        if len(wrong):
            raise SourceError(f"{where}: the label of picture {wrong[0]} is {values[wrong[0]]:g}; {FORMS}")
        return values.astype(np.int64)
    return values.astype(np.int64) if values.dtype.kind == "b" else values


def listed(where: str, labels: Sequence[Any]) -> np.ndarray:
    """A list of labels as an array; all must be of one type."""
    missing = next((number for number, label in enumerate(labels) if label is None), None)
    if missing is not None:
        raise SourceError(f"{where}: picture {missing} has no label; all pictures must have one, or none")
    types = {"number" if isinstance(label, (int, float)) else type(label).__name__ for label in labels}
    if len(types) > 1:
        raise SourceError(f"{where}: labels of different types ({', '.join(sorted(types))}); {FORMS}")
    try:
        return np.asarray(labels)
    except ValueError:
        raise SourceError(f"{where}: lists of labels of different lengths; {FORMS}") from None


def from_one_hot(where: str, rows: np.ndarray) -> np.ndarray:
    """The place of the 1 in each row."""
    if rows.dtype.kind == "U" or not (np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all()):
        raise SourceError(f"{where}: several labels for each picture (shape {list(rows.shape)}); {FORMS}")
    numbers = rows.argmax(1)
    if len(rows) > 1 and numbers.min() == numbers.max():
        raise SourceError(f"{where}: each picture has the same {rows.shape[1]} labels; {FORMS}")
    return numbers


def by_value(where: str, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Classes of whole numbers, by value."""
    if values.size and values.min() < 0:
        raise SourceError(
            f"{where}: labels go from {values.min()} to {values.max()}; they must be class numbers from 0"
        )
    found, numbers = np.unique(values, return_inverse=True)
    return tuple(map(str, found.tolist())), numbers


def by_name(where: str, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Classes of names."""
    if (values == "").any():
        raise SourceError(f"{where}: picture {np.flatnonzero(values == '')[0]} has an empty label; {FORMS}")
    names = in_order(set(values.tolist()))
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[name] for name in values.tolist()], np.int64)


def in_order(names: set[str]) -> tuple[str, ...]:
    """Names of classes in the order of their numbers: by value if all are whole numbers, otherwise by their letters."""
    if all(re.fullmatch("[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def folder_labels(names: Sequence[str]) -> tuple[list[str] | None, tuple[str, ...]]:
    """The class of each picture by its folder, None if folders make no classes; and remarks. names: with slashes."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    remarks: tuple[str, ...] = ()
    while all(folders):
        first = {parts[0] for parts in folders}
        splits = {name.lower() for name in first} <= SPLITS
        if len(first) > 1 and not splits:
            return [parts[0] for parts in folders], remarks
        if len(first) > 1:
            remarks = (f"{', '.join(sorted(first))} read together (data.validation and data.test split anew)",)
        folders = [parts[1:] for parts in folders]
    outside = sum(not parts for parts in folders)
    if outside < len(folders):
        remarks += (f"no labels: {outside:,} of {len(folders):,} pictures are in no class folder",)
    return None, remarks
