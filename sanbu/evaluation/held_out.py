"""A run's own objective on everything it held out: accuracy and calibration of a reward model, of a classifier, by number of shots."""

from __future__ import annotations

from typing import Any

import torch

from sanbu.config import SanbuError
from sanbu.noise import Noise
from sanbu.optimizers.search import add, add_pairs, ratios
from sanbu.run import Run
from sanbu.space import Models

ROWS = 64


def objective_on_held_out(run: Run) -> dict[str, Any]:
    """The loss and the figures of the objective over all held-out rows. Raises SanbuError when nothing is held out."""
    data, objective = run.recipe.data.build(), run.recipe.objective.build()
    if not data.held_out_rows:
        raise SanbuError(f"{run.folder}: data.validation is 0, so nothing is held out")
    models: Models = run.models
    terms: dict[str, Any] = {}
    counts: dict[str, float] = {}
    pairs: dict[str, Any] = {}
    with torch.no_grad():
        for start in range(0, data.held_out_rows, ROWS):
            batch = objective.experience(models, data.held_out(start, ROWS), Noise("evaluate", start))
            loss = objective.loss(models, batch)
            add(terms, loss.sums)
            add_pairs(pairs, loss.metrics)
            for name, count in objective.count(batch).items():
                counts[name] = counts.get(name, 0.0) + count
    total = sum(float(value) / max(counts[name], 1e-12) for name, value in terms.items())
    return {"loss": total, **ratios(pairs), "rows": data.held_out_rows}
