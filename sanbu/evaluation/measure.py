"""Chooses the measurement for given runs: few-shot tasks, or the one that their data names (`DataConfig.measure`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanbu.config import ConfigError, module_of
from sanbu.display.tables import Column, FittedTable
from sanbu.evaluation.few_shot import evaluate_tasks
from sanbu.evaluation.options import Measurement, Options, format_figure
from sanbu.machine import fitting_threads
from sanbu.run import Run

TASK_COLUMNS = (
    Column("run", number=False),
    Column("task", number=False),
    Column("asked", 5),
    Column("shots"),
    Column("accuracy"),
    Column("error", 1),
    Column("normalised", 2),
    Column("chance", 3),
    Column("questions", 4),
    Column("cut", 6),
)


def evaluate(*runs: Run | Path | str, **options: Any) -> dict[str, Any]:
    """Figures of runs on held-out data; see `Options`. Raises ConfigError for runs or options that do not fit."""
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    found, _ = measure(opened, **options)
    return found


def measure(runs: Sequence[Run], **options: Any) -> Measurement:
    """The figures and their text. Raises ConfigError for runs or options that do not fit together."""
    chosen = Options(**options)
    with fitting_threads(runs[0].model):
        return measure_with(runs, chosen)


def measure_with(runs: Sequence[Run], chosen: Options) -> Measurement:
    """The figures that the first run's data, or its tasks, define."""
    if chosen.tasks:
        return measure_tasks(runs, chosen)
    if chosen.data is not None and (runs[0].recipe.data.measure != "text" or not runs[0].recipe.strategy.draws):
        raise ConfigError(f"--data: {runs[0].folder} is not measured on other text; only runs of plain text are")
    first = runs[0].recipe
    of_samples = first.model.measure or first.data.measure
    name = of_samples if first.strategy.draws else first.objective.measure
    return module_of("sanbu.evaluation:MEASURES", name).measure(runs, chosen)


def measure_tasks(runs: Sequence[Run], options: Options) -> Measurement:
    """The few-shot table of all runs, and a whole prompt of each task."""
    found = {
        str(run.folder): evaluate_tasks(run, options.tasks, options.shots, options.folder, options.questions)
        for run in runs
    }
    rows = [
        [Path(name).name, *(format_figure(row[column.title]) for column in TASK_COLUMNS[1:])]
        for name, result in found.items()
        for row in result["rows"]
    ]
    prompts = next(iter(found.values()))["prompts"]
    shown = "\n".join(f"\n{task}, a whole prompt:\n{prompt}" for task, prompt in prompts.items())
    return {"runs": found}, f"{FittedTable(TASK_COLUMNS, rows, rest='wider terminal, or --json')}\n{shown}"
