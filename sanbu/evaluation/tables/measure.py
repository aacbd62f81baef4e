"""The figures of one run of a table: what `sanbu evaluate RUN` prints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.data.encoded_tables import EncodedTable
from sanbu.data.tables import Table
from sanbu.evaluation.held_out import evaluate_objective
from sanbu.evaluation.options import Measurement, Options, figure_lines, single_run
from sanbu.evaluation.tables.copies import WARNING
from sanbu.evaluation.tables.judge import Judge
from sanbu.objectives.columns import Columns
from sanbu.run import Run


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """Generated rows against held-out ones; the training rows give the ceiling."""
    run = single_run(runs)
    judge = Judge(table_of(run))
    found = figures(run, judge)
    real = judge.row("training rows", judge.train)
    ceiling = {f"real_{name}": value for name, value in real.items() if name.startswith(("tstr", "c2st", "w_test"))}
    loss = {loss_name(run): evaluate_objective(run)["loss"]}
    result = {"run": str(run.folder), **found, **ceiling, **loss, "privacy": WARNING}
    return result, figure_lines(result)


def loss_name(run: Run) -> str:
    """What the loss on held-out rows is: -log p of a row, or the error of a denoiser."""
    return "nats_per_row" if isinstance(run.recipe.objective, Columns) else "held_out_error"


def table_of(run: Run) -> Table:
    """The table of a run. Raises SanbuError for a run of something else."""
    data = run.recipe.data
    if isinstance(data, EncodedTable):
        return data.rows
    if not isinstance(data, Table):
        raise SanbuError(f"{run.folder} is not a run of a table")
    return data


def figures(run: Run, judge: Judge, name: str | None = None, seed: int = 0) -> dict[str, Any]:
    """The row of a run: its figures, and the CPU seconds of training and of drawing."""
    begun = time.process_time()
    generated = rows_of(run, judge.count, seed)
    spent = time.process_time() - begun
    fit = sum(row.get("time/cpu_seconds", 0.0) for row in run.metrics())
    drawing = spent * len(judge.train) / judge.count
    return judge.row(name or run.folder.name, generated, fit_s=fit, draw_s=drawing)


def rows_of(run: Run, count: int, seed: int = 0) -> Tensor:
    """cells_BC of so many rows."""
    condition = run.codec.condition(None, count)
    return torch.cat(run.drawing().parts(condition, seed * count, lambda reader: reader.sample))
