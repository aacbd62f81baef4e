"""Options of measurements, and figures as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbu.config import ConfigError
from sanbu.display.tables import Column, FittedTable
from sanbu.run import Run

Measurement = tuple[dict[str, Any], str]  # the figures, and the same as text


@dataclass(frozen=True)
class Options:
    """data: another text to evaluate on. inception: number of samples for Inception FID, 0 disables.

    questions: number per task or assistant. tasks: names of few-shot tasks. shots: numbers of worked examples in a
    prompt. folder: directory with the task files.
    """

    data: str | None = None
    inception: int = 0
    questions: int = 512
    tasks: Sequence[str] = ()
    shots: Sequence[int] = (0,)
    folder: Path = Path("data")


def single_run(runs: Sequence[Run]) -> Run:
    """The run in a list of one. Raises ConfigError for several runs."""
    if len(runs) > 1:
        raise ConfigError(
            f"evaluate: given {len(runs)} runs, but only assistants are measured together; see: sanbu compare"
        )
    return runs[0]


def measured_alike(runs: Sequence[Run]) -> None:
    """Raise ConfigError for runs that are not measured in the same way."""
    first = runs[0].recipe.data.measure
    other = next((run for run in runs if run.recipe.data.measure != first), None)
    if other is not None:
        kinds = f"{runs[0].folder} is measured as {first}, {other.folder} as {other.recipe.data.measure}"
        raise ConfigError(f"evaluate: {kinds}; evaluate them one at a time")


def figure_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], styles: Sequence[str] = ()) -> str:
    """A table of `name` and the figures of each row; a figure that is None or missing is left empty.

    columns: the format of each figure, by its name. styles: of rich, one per row.
    """

    def cell(value: Any, style: str) -> str:
        return "" if value is None else format(value, style)

    heads = [Column("name", number=False), *(Column(name.replace("_", " ")) for name in columns)]
    cells = [[row["name"], *(cell(row.get(name), style) for name, style in columns.items())] for row in rows]
    return str(FittedTable(heads, cells, styles, rest="wider terminal, or --json"))


def figure_lines(figures: dict[str, Any]) -> str:
    """One line of text per figure."""
    return "\n".join(f"{name.replace('_', ' ')}: {format_figure(value)}" for name, value in figures.items())


def format_figure(value: Any) -> str:
    """A figure as text: four decimals for floats, thousands separators."""
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
