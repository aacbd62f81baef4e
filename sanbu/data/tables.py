"""Rows of a table, split by a hash of their content, so that equal rows fall on one side.

A batch holds cells_BC (codecs/columns.py) and row_B; with a target also x_BF, the other columns as standardised
numbers, and y_B, the target as a number or as the index of its class.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sanbu.codecs.codec import Codec
from sanbu.codecs.columns import Column, text_of
from sanbu.codecs.features import Features
from sanbu.codecs.tables import TableCodec
from sanbu.config import SanbuError, dump
from sanbu.data.data import Data, DataConfig, no_tokens
from sanbu.data.order import shuffled
from sanbu.data.schema import Wanted, infer
from sanbu.data.table_files import SETS, Frame, is_set, read_frame
from sanbu.space import Batch, Space

FEWEST = 10  # rows of a table


class Table(DataConfig):
    """Rows of a table with typed columns; a hash of each row decides its split."""

    measure: ClassVar[str] = "tables"
    kind: Literal["table"] = "table"
    path: str = Field("iris", description=f"CSV, TSV, Parquet, Excel or JSON file, or {', '.join(SETS)}")
    target: str = Field("auto", description="column to predict; none: no column; auto: that of a table without a file")
    types: dict[str, Wanted] = Field({}, description='types that replace those found: {"age":"category","id":"drop"}')
    columns: tuple[Column, ...] | Literal["auto"] = Field("auto", description="the schema; auto reads the data")
    names: Literal["one-hot", "codes"] = Field("one-hot", description="categories as features: one-hot, or their index")
    gaps: Literal["nan", "flag"] = Field(
        "nan", description="missing features: NaN, or 0 and a further feature that is 1"
    )
    validation: float = Field(0.2, ge=0, lt=1, description="fraction of the rows held out, by a hash of the row")
    split: int = Field(0, ge=0, description="number of the split; another one holds out other rows")
    rows: int = Field(0, ge=0, description="training rows at most; 0: all")

    def space(self) -> Space:
        found = self.resolve()
        assert found.columns != "auto"
        features = found.features()
        return Space((features.width,), classes=features.classes, columns=found.columns, target=features.place)

    def features(self) -> Features:
        """How the columns of a resolved config become features and a target."""
        assert self.columns != "auto", "resolve the data first"
        return Features(self.columns, "" if self.target == "auto" else self.target, self.names, self.gaps)

    def resolve(self) -> Table:
        if self.columns != "auto" and self.target != "auto":
            return self
        found = inferred(json.dumps(dump(self)), state_of(self.path))
        return self.model_copy(update=dict(found))

    def build(self) -> Data:
        return TableRows(self.resolve())

    def example(self, rows: int) -> Batch:
        found = self.resolve()
        assert found.columns != "auto"
        batch = {"cells": torch.zeros(rows, len(found.columns), dtype=torch.float64), "row": no_tokens(rows)}
        if not found.target:
            return batch
        y = no_tokens(rows) if found.features().classes else torch.zeros(rows)
        return batch | {"x": torch.zeros(rows, found.features().width), "y": y}

    def codec(self, folder: Path) -> Codec:
        return TableCodec(self.features())


def state_of(path: str) -> tuple[int, int]:
    """Time of change and size of a file; zeros where there is none."""
    place = Path(path)
    return (place.stat().st_mtime_ns, place.stat().st_size) if place.is_file() else (0, 0)


@lru_cache(maxsize=16)
def inferred(config_json: str, state: tuple[int, int]) -> tuple[tuple[str, Any], ...]:
    """What `auto` stands for in a config of the table in a file of that state."""
    config = Table.model_validate_json(config_json)
    frame = read_frame(config.path)
    own = SETS[config.path][1] if is_set(config.path) else ""
    target = {"auto": own, "none": "", "": ""}.get(config.target, config.target)
    train, _ = parts(frame, config, target)
    columns = config.columns if config.columns != "auto" else infer(frame, train, config.types, target)
    return (("columns", columns), ("target", target))


# -- the split --------------------------------------------------------------------------------------------------------


def parts(frame: Frame, config: Table, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the training and of the held-out rows. Raises SanbuError if there are too few."""
    if target:
        frame.column(target)
    chance = chances(frame, config.split)
    there = ~missing_in(frame, target) if target else np.ones(len(frame), dtype=bool)
    train = np.flatnonzero((chance >= config.validation) & there)
    if config.rows:
        train = np.sort(train[np.argsort(-chance[train], kind="stable")[: config.rows]])
    if len(train) < FEWEST:
        raise SanbuError(f"data.path: {config.path!r} has {len(train)} rows for training, allowed: at least {FEWEST}")
    return train, np.flatnonzero((chance < config.validation) & there)


def chances(frame: Frame, split: int) -> np.ndarray:
    """A number in [0, 1) for each row, a hash of its cells."""
    texts = [[text_of(value) for value in column.tolist()] for column in frame.columns]
    start = b"" if not split else str(split).encode()
    hashes = [hashlib.blake2b("\0".join(row).encode("utf-8", "replace"), digest_size=8, key=start).digest()
              for row in zip(*texts, strict=True)]  # fmt: skip
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.float64) / 2.0**64


def missing_in(frame: Frame, name: str) -> np.ndarray:
    """Which rows lack the cell of a column."""
    values = frame.column(name)
    if values.dtype != object:
        return np.isnan(values)
    from sanbu.codecs.columns import is_missing

    return np.array([is_missing(text) for text in values.tolist()])


# -- rows -------------------------------------------------------------------------------------------------------------


class TableRows:
    """The rows of a resolved config. remarks: what a person should know about the table."""

    def __init__(self, config: Table) -> None:
        assert config.columns != "auto"
        self.config, self.features = config, config.features()
        self.codec = TableCodec(self.features)
        frame = read_frame(config.path)
        about = json.dumps([1, dump(config), content_of(frame)])
        self.fingerprint = "table-" + hashlib.sha256(about.encode()).hexdigest()[:24]
        train, held_out = parts(frame, config, config.target)
        self.remarks: list[str] = []
        self.parts = {"train": self._cells(frame.take(train)), "held_out": self._cells(frame.take(held_out))}
        if config.target:
            self._leave_out_unknown_classes()
            self._remark(len(frame) - len(train) - len(held_out) if not config.rows else 0, "without a target left out")
        self.remarks += remarks_of(config.columns)
        self.rows, self.held_out_rows = len(self.parts["train"]), len(self.parts["held_out"])

    def _cells(self, frame: Frame) -> Tensor:
        columns = self.features.columns
        cells = [column.cells(frame.column(column.name), frame.places) for column in columns]
        return torch.from_numpy(np.stack(cells, 1))

    def _leave_out_unknown_classes(self) -> None:
        """Held-out rows of a class that training does not have cannot be judged."""
        place, held_out = self.features.place, self.parts["held_out"]
        known = ~held_out[:, place].isnan()
        self.parts["held_out"] = held_out[known]
        self._remark(int((~known).sum()), "of a class without training rows left out")

    def _remark(self, count: int, what: str) -> None:
        if count:
            self.remarks.append(f"{count:,} rows {what}")

    @cached_property
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """x and y of each part; nothing without a target."""
        return {part: self.features.tensors(cells) for part, cells in self.parts.items()}

    def describe(self) -> str:
        """Numbers of rows and columns, and the target."""
        target = f", target {self.config.target}" if self.config.target else ""
        return f"{self.rows:,} rows of {len(self.features.columns)} columns{target}, {self.held_out_rows:,} held out"

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions start .. start + size - 1 of the endless training order."""
        return self._take("train", torch.from_numpy(shuffled(np.arange(start, start + size), self.rows, seed=0)))

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows in the order of the file."""
        return self._take("held_out", torch.arange(start, min(start + size, self.held_out_rows)))

    def _take(self, part: str, rows: Tensor) -> Batch:
        more = {name: tensor[rows] for name, tensor in self.tensors[part].items()}
        return {"cells": self.parts[part][rows], "row": rows, **more}

    def preview(self, rows: int) -> tuple[dict[str, Any], list[str]]:
        """The schema, the remarks and the first rows, as fields and as lines."""
        shown = [self.codec.read(row) for row in self.parts["train"][:rows]]
        schema = {column.name: column.describe() for column in self.features.columns}
        about = {"data": self.describe(), "remarks": self.remarks, "schema": schema, "rows": shown}
        width = max(map(len, schema)) + 2
        lines = [self.describe(), *(f"  {remark}" for remark in self.remarks)]
        lines += [f"  {name:{width}}{text}" for name, text in schema.items()]
        return about, [*lines, *self.codec.together(shown).splitlines()]


def remarks_of(columns: tuple[Column, ...]) -> list[str]:
    """Columns that teach nothing."""
    empty = [f"{each.name!r} has no cell that is not missing" for each in columns if each.empty]
    return empty + [f"{each.name!r} has the same value in every row" for each in columns if each.constant]


def content_of(frame: Frame) -> str:
    """A hash of everything in a frame."""
    digest = hashlib.sha256("\0".join(frame.names).encode())
    for column in frame.columns:
        texts = column.tolist() if column.dtype == object else None
        digest.update(column.tobytes() if texts is None else "\0".join(texts).encode("utf-8", "replace"))
    return digest.hexdigest()
