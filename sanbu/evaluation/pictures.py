"""A run of pictures, measured: its samples, their speed, and its likelihood where it has one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from sanbu.evaluation.contest import cost
from sanbu.evaluation.picture_metrics import Judge, Row
from sanbu.noise import Noise
from sanbu.objectives.elbo import ImportanceWeighted
from sanbu.objectives.likelihood import Likelihood
from sanbu.run import Run
from sanbu.strategies.strategy import last

AT_ONCE = 512


def measure(run: Run, name: str, judge: Judge, overrides: tuple[str, ...] = (), seed: int = 10**6) -> Row:
    """Draw as many pictures as the judge compares, and weigh them."""
    samples, nfe, seconds = draw(run, judge.count, seed, overrides)
    _, _, alone = draw(run, 1, seed, overrides)
    return Row(
        name=name,
        strategy=run.recipe.strategy.model_dump()["kind"],
        **judge.score(samples),
        nfe=nfe,
        ms_per_image=1000 * seconds / judge.count,
        ms_alone=1000 * alone,
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        bits_per_dimension=bits_per_dimension(run),
        **cost(run),
    )


def draw(run: Run, count: int, seed: int, overrides: tuple[str, ...]) -> tuple[np.ndarray, int, float]:
    """Pictures, evaluations of the model for each, and the seconds they took (of CPU time on a CPU)."""
    clock = time.process_time if run.device.type == "cpu" else time.perf_counter
    found, seconds, nfe = [], 0.0, 0
    for start in range(0, count, AT_ONCE):
        since = clock()
        draft = last(run.drafts(None, min(AT_ONCE, count - start), seed + start, overrides))
        nfe = int(draft.evaluations[0])
        seconds += clock() - since
        found += [run.codec.read(row) for row in draft.sample]
    return np.stack(found), nfe, seconds


@torch.no_grad()
def bits_per_dimension(run: Run, rows: int = 1000) -> float | None:
    """On test pictures: exact, or the bound of 64 latents; None where the family gives no likelihood. Never across families."""
    families = {"pixels": Likelihood(), "latent": ImportanceWeighted(draws=64)}
    config = families.get(run.recipe.model.family)
    if config is None:
        return None
    data: Any = run.recipe.data.build()
    objective, models = config.build(), {"model": run.model}
    top = bottom = 0.0
    for start in range(0, min(rows, len(data.places["test"])), 100):
        batch = data.take(data.places["test"][start : start + 100])
        batch = {name: tensor.to(run.device) for name, tensor in batch.items()}
        batch = objective.experience(models, batch, Noise("likelihood", first_row=start, device=run.device))
        pair = objective.loss(models, batch).metrics["bits_per_dimension"]
        top, bottom = top + float(pair[0]), bottom + float(pair[1])
    return top / bottom if bottom else None
