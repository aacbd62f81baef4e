"""The codec of tables: a sample is a row, cells_C of float64; a person reads it as a dictionary, a file as a line.

A prompt is a dictionary of given cells, or the text "age=30,sex=F". A predictor answers with a class, a number, or
several numbers by name: quantiles, for example.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.codec import Written
from sanbu.codecs.columns import Column, text_of
from sanbu.codecs.features import Features
from sanbu.config import SanbuError, nearest
from sanbu.files import replace_atomically
from sanbu.space import Batch, Draft

Row = dict[str, Any]
Reader = Callable[[Tensor], dict[str, Tensor]]  # outputs_BO -> values_B by name, the answer itself first
SUFFIXES = (".csv", ".tsv")


class TableCodec:
    """Rows of a table with these columns. reader: what the outputs of a predictor are, by name."""

    medium, unit = "table", "rows"

    def __init__(self, features: Features, reader: Reader | None = None) -> None:
        self.features, self.columns, self.reader = features, features.columns, reader
        self.names = [column.name for column in self.columns]

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes of the target; nothing for a number."""
        return self.columns[self.features.place].names if self.features.classes else ()

    @property
    def groups(self) -> dict[str, list[int]]:
        """The features x of each column, by its name."""
        return self.features.groups

    def save(self, folder: Path) -> None:
        """Nothing to save: the schema is in the recipe."""

    def vocabulary(self) -> None:
        """None: cells have no tokens."""

    def amount(self, batch: Batch) -> int:
        return len(next(iter(batch.values())))

    # -- in -----------------------------------------------------------------------------------------------------------

    def request(self, prompt: str | None, label: str | None) -> Row | None:
        """The given cells of a text such as "age=30,sex=F"; quotes as in CSV protect commas."""
        if label is not None:
            raise SanbuError('--label: this run draws rows of a table; give cells with --where "column=value"')
        if prompt is None:
            return None
        given: Row = {}
        for part in next(csv.reader(io.StringIO(prompt), skipinitialspace=True), []):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise SanbuError(f'--where: given {part!r}, but column=value is needed, as in "age=30,sex=F"')
            self.place(name, "--where: ")
            given[name] = value
        return given

    def place(self, name: str, where: str = "") -> int:
        """The place of a column. Raises SanbuError with the nearest match."""
        if name not in self.names:
            shown = ", ".join(self.names[:20])
            raise SanbuError(f"{where}there is no column {name!r}; columns: {shown}{nearest(name, self.names)}")
        return self.names.index(name)

    def condition(self, prompt: Row | Sequence[Row] | None, rows: int, seed: int = 0) -> Batch:
        """cells_BC with given_BC, and the features x of the given cells where there is a target."""
        prompts = [prompt or {}] if prompt is None or isinstance(prompt, Mapping) else list(prompt)
        cells = torch.full((len(prompts), len(self.columns)), torch.nan, dtype=torch.float64)
        given = torch.zeros(cells.shape, dtype=torch.bool)
        for row, wanted in enumerate(prompts):
            for name, value in wanted.items():
                place = self.place(name)
                cells[row, place] = self.columns[place].cell(text_of(value))
                given[row, place] = True
        return self.complete(cells.repeat_interleave(rows, 0), given.repeat_interleave(rows, 0))

    def complete(self, cells: Tensor, given: Tensor) -> Batch:
        """The condition of given cells."""
        x = {"x": self.features.x(cells)} if self.features.target else {}
        return {"cells": cells, "given": given, **x}

    def cells(self, columns: Mapping[str, np.ndarray], places: Sequence[str]) -> Tensor:
        """cells_BC of a table with these columns, in any order; what a column lacks is missing."""
        found = [column.cells(columns[column.name], places) for column in self.columns]
        return torch.from_numpy(np.stack(found, 1))

    # -- out ----------------------------------------------------------------------------------------------------------

    def follow(self, stop: Sequence[str] = ()) -> TableFollower:
        """A follower of rows, or of the answers of a predictor; `stop` has no meaning here."""
        return TableFollower(self)

    def read(self, sample: Tensor) -> Any:
        """A row as a dictionary; the outputs of a predictor as a class or a number."""
        if sample.dtype != torch.float64:
            return self.answer(sample)
        cells = sample.tolist()
        return {column.name: column.read(cell) for column, cell in zip(self.columns, cells, strict=True)}

    def answer(self, outputs_O: Tensor) -> Any:
        """The class of the highest score, the number that a predictor gives, or several of them by name."""
        if not outputs_O.numel():
            return None
        if self.features.classes == len(outputs_O):
            return self.columns[self.features.place].names[int(outputs_O.argmax())]
        found = {str(place): value for place, value in enumerate(outputs_O)}
        if self.reader is not None:
            found = {name: value[0] for name, value in self.reader(outputs_O[None]).items()}
        numbers = {name: float(value) for name, value in found.items()}
        return numbers if len(numbers) > 1 else next(iter(numbers.values()))

    def reading(self, reader: Reader) -> TableCodec:
        """This codec with a reader of outputs."""
        return TableCodec(self.features, reader)

    def is_row(self, sample: Any) -> bool:
        """Whether a sample is a row of the table, and not the answer of a predictor."""
        return isinstance(sample, dict) and list(sample) == self.names

    def show(self, sample: Any) -> str:
        """A row, or several numbers, as name=value, ..."""
        if not isinstance(sample, dict):
            return str(sample)
        if not self.is_row(sample):
            return ", ".join(f"{name}={value:.6g}" for name, value in sample.items())
        return ", ".join(f"{name}={'' if value is None else value}" for name, value in sample.items())

    def together(self, samples: Sequence[Any]) -> str:
        """Rows as lines of a table."""
        if not samples or not self.is_row(samples[0]):
            return "\n".join(map(self.show, samples))
        lines = [self.names, *([self.text(row, column) for column in self.columns] for row in samples)]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
        return "\n".join("  ".join(line).rstrip() for line in padded)

    def text(self, row: Row, column: Column) -> str:
        """The cell of a row as text, as a file has it."""
        value = row[column.name]
        if value is None or isinstance(value, str):
            return column.blank if value is None else value
        return column.write(float(value))

    def render(self, samples: Sequence[Any], path: Path) -> Path:
        """Write all samples into one CSV file."""
        path = path.with_name(path.name + ".csv")
        self.write(samples, path)
        return path

    def export(self, samples: Sequence[Any], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write all rows into the file `folder`, where it ends with .csv or .tsv, or into rows.csv in a folder."""
        path = folder if folder.suffix.lower() in SUFFIXES else folder / "rows.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write(samples, path)
        return {"samples": len(samples), "folder": str(path.parent), "overview": str(path)}

    def write(self, samples: Sequence[Any], path: Path) -> None:
        """Write rows, or the answers of a predictor, as CSV or TSV."""
        if not samples or self.is_row(samples[0]):
            lines = [self.names, *([self.text(row, column) for column in self.columns] for row in samples)]
        elif isinstance(samples[0], dict):
            titles = [f"{self.features.target} {name}" for name in samples[0]]
            lines = [titles, *([str(value) for value in answer.values()] for answer in samples)]
        else:
            lines = [[self.features.target], *([str(answer)] for answer in samples)]
        write_lines(lines, path)


def write_lines(lines: Sequence[Sequence[str]], path: Path) -> None:
    """Write lines of cells as CSV, or as TSV by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(lines)


class TableFollower:
    """Keeps the last draft."""

    def __init__(self, codec: TableCodec) -> None:
        self.codec, self.sample = codec, torch.zeros(0)

    def update(self, draft: Draft) -> Tensor:
        """Keep the draft."""
        self.sample = draft.sample
        return draft.done

    @property
    def pieces(self) -> list[Any]:
        """Each row as it is now."""
        return self.results()

    def results(self) -> list[Any]:
        """Each row as a dictionary."""
        return [self.codec.read(row) for row in self.sample]
