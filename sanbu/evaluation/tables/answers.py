"""What a run of tables says about the rows of a file: the cells that are missing, or the target.

A cell that stands in the file is written as it stands there; only holes are filled, in as many draws as are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.columns import is_missing, text_of
from sanbu.codecs.tables import TableCodec
from sanbu.config import SanbuError, nearest
from sanbu.data.table_files import Frame, read_frame
from sanbu.run import Run

Lines = list[list[str]]
DRAWS = 100  # of the target, by a run that generates rows


@dataclass(frozen=True)
class Rows:
    """Rows of a file for a run: cells_BC, and given_BC, which of them the file has and the model knows."""

    frame: Frame
    cells: Tensor
    given: Tensor

    def texts(self) -> Lines:
        """The cells of the file."""
        columns = [[text_of(value) for value in column.tolist()] for column in self.frame.columns]
        return [list(row) for row in zip(*columns, strict=True)]


def table_codec(run: Run) -> TableCodec:
    """The codec of a run of tables. Raises SanbuError for another run."""
    if not isinstance(run.codec, TableCodec):
        raise SanbuError(f"{run.folder} draws {run.codec.unit}, not rows of a table; train one with: sanbu train table")
    return run.codec


def read_rows(run: Run, path: str) -> Rows:
    """The rows of a file. Raises SanbuError if it has none of the columns of the run."""
    codec, frame = table_codec(run), read_frame(path)
    shared = [name for name in codec.names if name in frame.names]
    if not shared:
        close = nearest(frame.names[0], codec.names)
        raise SanbuError(f"{path} has none of the columns of {run.folder}: {', '.join(codec.names[:12])}{close}")
    blank = np.full(len(frame), np.nan)
    columns = [
        column.cells(frame.column(column.name), frame.places) if column.name in shared else blank
        for column in codec.columns
    ]
    cells = torch.from_numpy(np.stack(columns, 1))
    return Rows(frame, cells, ~cells.isnan())


def impute(run: Run, path: str, draws: int = 1, seed: int = 0) -> tuple[Lines, int]:
    """The lines of the file with its holes filled, and the number of holes. Several draws: a first column numbers them.

    A column of the run that the file lacks is a hole in every row. Row i of draw d is drawn with seed + i + d rows.
    """
    codec, rows = table_codec(run), read_rows(run, path)
    if not run.recipe.strategy.draws:
        raise SanbuError(
            f"{run.folder} predicts {codec.features.target!r} alone; holes are filled by: sanbu train table"
        )
    new = [name for name in codec.names if name not in rows.frame.names]
    texts = rows.texts()
    names = [*rows.frame.names, *new]
    lines: Lines = [["draw", *names] if draws > 1 else names]
    holes = 0
    for number in range(draws):
        filled = sample(run, rows, seed + number * len(texts))
        for text, cells in zip(texts, filled.tolist(), strict=True):
            written = dict(zip(rows.frame.names, text, strict=True))
            drawn = dict(zip(codec.names, cells, strict=True))
            for column in codec.columns:
                if is_missing(written.get(column.name, "")):
                    written[column.name] = column.write(drawn[column.name])
                    holes += 1
            line = [written[name] for name in (*rows.frame.names, *new)]
            lines.append([str(number + 1), *line] if draws > 1 else line)
    return lines, holes // draws


def sample(run: Run, rows: Rows, seed: int) -> Tensor:
    """cells_BC of the rows, with what is missing drawn."""
    drawing = run.drawing(fields={"missing": "never", **({"law": "further"} if has_law(run) else {})})
    condition = table_codec(run).complete(rows.cells, rows.given)
    return torch.cat(drawing.parts(condition, seed, lambda reader: reader.sample))


def has_law(run: Run) -> bool:
    """Whether the strategy of a run knows the law of a further row; holes are filled by it, for honest intervals."""
    return "law" in type(run.recipe.strategy).model_fields


def predict(run: Run, path: str, seed: int = 0) -> Lines:
    """The lines of the file with its predictions: of a class also the probability of each, of a number what is read.

    A run that generates rows draws the target given the others, DRAWS times.
    """
    codec, rows = table_codec(run), read_rows(run, path)
    target = codec.features.target
    if not target:
        raise SanbuError(f"{run.folder} has no target to predict; train with target=COLUMN")
    if run.recipe.strategy.draws:
        titles, answers = drawn_target(run, rows, seed)
    else:
        titles, answers = outputs(run, rows)
    lines = [[*text, *answer] for text, answer in zip(rows.texts(), answers, strict=True)]
    return [[*rows.frame.names, *titles], *lines]


def outputs(run: Run, rows: Rows) -> tuple[list[str], Lines]:
    """The answers of a predictor, as its objective reads them."""
    codec = table_codec(run)
    objective: Any = run.recipe.objective
    condition = codec.complete(rows.cells, rows.given)
    found = objective.read(torch.cat(run.drawing().parts(condition, 0, lambda reader: reader.sample)))
    values = torch.stack(list(found.values()), 1)
    if codec.features.classes:
        return classes_of(codec, values)
    titles = [f"predicted {name}" for name in found]
    return titles, [as_text(row) for row in values.tolist()]


def as_text(row: Sequence[float]) -> list[str]:
    """Numbers as six digits."""
    return [f"{value:.6g}" for value in row]


def classes_of(codec: TableCodec, chance_BK: Tensor) -> tuple[list[str], Lines]:
    """The likeliest class, and the probability of each."""
    names, target = codec.classes, codec.features.target
    best = [names[place] for place in chance_BK.argmax(1).tolist()]
    lines = [[name, *as_text(row)] for name, row in zip(best, chance_BK.tolist(), strict=True)]
    return [f"predicted {target}", *(f"p({name})" for name in names)], lines


def drawn_target(run: Run, rows: Rows, seed: int) -> tuple[list[str], Lines]:
    """The share of each class, or the mean and the deviation, among draws of the target given all other cells."""
    codec = table_codec(run)
    place, given = codec.features.place, rows.given.clone()
    given[:, place] = False
    hidden = Rows(rows.frame, rows.cells, given)
    seeds = range(seed, seed + DRAWS * len(given), len(given))
    drawn_DB = torch.stack([sample(run, hidden, each)[:, place] for each in seeds])
    if codec.features.classes:
        kinds = [(drawn_DB == kind).double().mean(0) for kind in range(codec.features.classes)]
        return classes_of(codec, torch.stack(kinds, 1))
    found = torch.stack((drawn_DB.mean(0), drawn_DB.std(0)), 1)
    return [f"predicted {codec.features.target}", "deviation"], [as_text(row) for row in found.tolist()]
