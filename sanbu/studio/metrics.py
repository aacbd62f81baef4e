"""The metrics of runs as the page reads them: only what is new, and a damaged line is named and left out."""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

POINTS = 400  # of a line on the page
HELD_OUT = "held_out/"
KEPT = 32  # files whose rows stay in memory
COLUMNS = ("x", "value", "figure")
Row = dict[str, Any]


@dataclass(frozen=True)
class Metrics:
    """Rows of a metrics.jsonl. torn: the numbers of the lines that are no rows. cut: its last line is not whole."""

    rows: Sequence[Row] = ()
    torn: tuple[int, ...] = ()
    cut: int = 0

    @property
    def step(self) -> int:
        """The last step; 0 before the first."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def seconds(self) -> float:
        """The time that all rounds took."""
        return sum(number(row.get("time/seconds")) or 0.0 for row in self.rows)


@dataclass
class Reader:
    """One file, read on from where the last look ended. last: the bytes of the last line that was read."""

    path: Path
    size: int = 0
    last: bytes = b""
    lines: int = 0
    rows: list[Row] = field(default_factory=list)
    torn: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> Metrics:
        """All rows so far. Raises OSError if the file cannot be read."""
        with self.lock:
            with self.path.open("rb") as file:
                file.seek(max(0, self.size - len(self.last)))
                if file.read(len(self.last)) != self.last:  # another file, or cut by a run that was resumed
                    self.size, self.last, self.lines = 0, b"", 0
                    self.rows, self.torn = [], []
                    file.seek(0)
                *whole, rest = file.read().split(b"\n")
            for line in whole:
                self.take(line)
            if not rest:
                return Metrics(self.rows.copy(), tuple(self.torn))
            row = row_of(rest)
            if row is None:
                return Metrics(self.rows.copy(), tuple(self.torn), self.lines + 1)
            return Metrics([*self.rows, row], tuple(self.torn))

    def take(self, line: bytes) -> None:
        """Add one line that is complete."""
        self.lines += 1
        self.last = line + b"\n"
        self.size += len(self.last)
        row = row_of(line)
        if row is not None:
            self.rows.append(row)
        elif line.strip():
            self.torn.append(self.lines)


class Readers:
    """The readers of the files that were asked for last."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Path, Reader] = OrderedDict()
        self.lock = threading.Lock()

    def read(self, path: Path) -> Metrics:
        """The rows of a file; none where there is no file. Raises OSError if it cannot be read."""
        with self.lock:
            reader = self.kept.setdefault(path, Reader(path))
            self.kept.move_to_end(path)
            if len(self.kept) > KEPT:
                self.kept.popitem(last=False)
        try:
            return reader.read()
        except FileNotFoundError:
            return Metrics()


def row_of(line: bytes) -> Row | None:
    """A line as a row; None for one that is torn, or that has no step."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and number(row.get("step")) is not None else None


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def figures_of(metrics: Metrics) -> list[str]:
    """The names of the metrics, `loss` first; a held-out metric is listed only if it has no training counterpart."""
    every: dict[str, None] = {}
    for row in metrics.rows:
        every |= dict.fromkeys(key for key, value in row.items() if number(value) is not None)
    names = [key for key in every if key != "step" and not twin(key, every)]
    return sorted(names, key=lambda name: name != "loss") or ["loss"]


def twin(name: str, names: Container[str]) -> bool:
    """Whether a metric is drawn with its training counterpart."""
    return name.startswith(HELD_OUT) and name.removeprefix(HELD_OUT) in names


def line_of(metrics: Metrics, figure: str, time: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A metric over the steps, or over the seconds of training: both float [T]."""
    xs, ys, seconds = [], [], 0.0
    for row in metrics.rows:
        seconds += number(row.get("time/seconds")) or 0.0
        value = number(row.get(figure))
        if value is not None:
            xs.append(seconds if time else float(row["step"]))
            ys.append(value)
    return np.array(xs, float), np.array(ys, float)


def smoothed(values: np.ndarray, smoothing: float) -> np.ndarray:
    """The exponential moving average [T], without the bias towards the start; smoothing: 0 (none) to below 1."""
    if smoothing <= 0 or not len(values):
        return values
    average = pd.Series(values).ewm(alpha=1 - smoothing, adjust=True).mean()
    return np.asarray(average)


def thinned(xs: np.ndarray, ys: np.ndarray) -> Iterator[tuple[float, float]]:
    """At most about POINTS of the points, among them the last."""
    every = max(1, len(xs) // POINTS)
    places = {*range(0, len(xs), every), *range(len(xs))[-1:]}
    for place in sorted(places):
        yield float(xs[place]), float(ys[place])


def curves(
    runs: Sequence[tuple[str, Metrics]], figure: str, smoothing: float = 0.0, time: bool = False
) -> pd.DataFrame:
    """A metric of each run, and its held-out counterpart, as points; of several runs each line bears the run's name.

    The types are those of numbers even while there is no point, so that the axes stay axes of numbers.
    """
    points: list[tuple[float, float, str]] = []
    for name, metrics in runs:
        for key in (figure, HELD_OUT + figure):
            xs, ys = line_of(metrics, key, time)
            title = key if len(runs) == 1 else f"{name}: {key}"
            points += [(x, y, title) for x, y in thinned(xs, smoothed(ys, smoothing))]
    frame = pd.DataFrame(points, columns=list(COLUMNS))
    return frame.astype({"x": float, "value": float, "figure": str})
