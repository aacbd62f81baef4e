"""A run's own objective on its held-out rows: accuracy and calibration of reward models and classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sanbu.config import SanbuError
from sanbu.data.data import Data
from sanbu.evaluation.options import Measurement, Options, figure_lines, single_run
from sanbu.noise import Noise
from sanbu.objectives.objective import Loss, Round, losses, report
from sanbu.parallel.sharing import over_ranks, sharers
from sanbu.progress import progress_rows
from sanbu.run import Run

ROWS = 64


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """The held-out figures of one run's objective."""
    run = single_run(runs)
    found = evaluate_objective(run)
    return {"run": str(run.folder), **found}, figure_lines(found)


def evaluate_objective(run: Run) -> dict[str, Any]:
    """Loss and metrics of the objective over all held-out rows. Raises SanbuError if nothing is held out."""
    data, objective = run.recipe.data.build(), run.recipe.objective.build()
    if not data.held_out_rows:
        raise SanbuError(f"{run.folder}: {nothing_held_out(run.recipe.data, data)}")
    with progress_rows("evaluating", data.held_out_rows) as progress:

        def measure(start: int) -> list[tuple[Loss, dict[str, float]]]:
            rows = data.held_out(start, ROWS)
            progress(min(ROWS, data.held_out_rows - start) * sharers())
            return losses(objective, Round(run.models, rows, Noise("evaluate", start), learning=False))

        found = report(over_ranks(range(0, data.held_out_rows, ROWS), measure))
    return found | {"rows": data.held_out_rows}


def nothing_held_out(config: Any, data: Data) -> str:
    """Why data has no held-out rows: none are asked for, or none fell into that part."""
    fraction = getattr(config, "validation", 0)
    if not fraction:
        return "data.validation is 0, so nothing is held out"
    return f"nothing fell into the held-out part, data.validation={fraction} of {data.describe()}"
