"""What a measurement may be asked for, and how figures are shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbu.config import ConfigError
from sanbu.run import Run

Measured = tuple[dict[str, Any], str]  # the figures, and the same as a person reads them


@dataclass(frozen=True)
class Options:
    """data: other text to evaluate. inception: samples for Inception FID, 0 disables. questions: per task or assistant.

    tasks, shots: few-shot tasks and the numbers of examples in each prompt. folder: where the files of the tasks are.
    """

    data: str | None = None
    inception: int = 0
    questions: int = 512
    tasks: Sequence[str] = ()
    shots: Sequence[int] = (0,)
    folder: Path = Path("data")


def only(runs: Sequence[Run]) -> Run:
    """The one run given. Raises ConfigError for several."""
    if len(runs) > 1:
        raise ConfigError(
            f"evaluate: given {len(runs)} runs, but only assistants are measured together; see: sanbu compare"
        )
    return runs[0]


def lines_of(figures: dict[str, Any]) -> str:
    """A line for each figure."""
    return "\n".join(f"{name.replace('_', ' ')}: {readable(value)}" for name, value in figures.items())


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text."""
    widths = [max(len(str(row[i])) for row in [titles, *rows]) for i in range(len(titles))]
    return "\n".join(
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [titles, *rows]
    )


def readable(value: Any) -> str:
    """A figure as a person reads it."""
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
