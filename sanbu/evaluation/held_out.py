"""A run's own objective on its held-out rows: accuracy and calibration of reward models and classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sanbu.config import SanbuError
from sanbu.data.data import Data
from sanbu.evaluation.options import Measured, Options, lines_of, only
from sanbu.noise import Noise
from sanbu.objectives.objective import Round, evaluate
from sanbu.run import Run

ROWS = 64


def measure(runs: Sequence[Run], options: Options) -> Measured:
    """The figures of the objective of one run."""
    run = only(runs)
    found = {"run": str(run.folder), **objective_on_held_out(run)}
    return found, lines_of({name: value for name, value in found.items() if name != "run"})


def objective_on_held_out(run: Run) -> dict[str, Any]:
    """The loss and the figures of the objective over all held-out rows. Raises SanbuError when nothing is held out."""
    data, objective = run.recipe.data.build(), run.recipe.objective.build()
    if not data.held_out_rows:
        raise SanbuError(f"{run.folder}: data.validation is 0, so nothing is held out")
    return evaluate(objective, rounds(run, data)) | {"rows": data.held_out_rows}


def rounds(run: Run, data: Data) -> Iterator[Round]:
    """Every held-out row once."""
    for start in range(0, data.held_out_rows, ROWS):
        yield Round(run.models, data.held_out(start, ROWS), Noise("evaluate", start), learning=False)
