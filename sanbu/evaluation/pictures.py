"""Measures one run of pictures: its samples, the speed of sampling, and the likelihood if the model has one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.config import kind_of
from sanbu.evaluation.contest import training_cost
from sanbu.evaluation.picture_metrics import MOST, Judge, Row, some
from sanbu.noise import Noise
from sanbu.objectives.elbo import ImportanceWeighted
from sanbu.objectives.likelihood import Likelihood
from sanbu.objectives.objective import Round, evaluate
from sanbu.parallel.sharing import over_ranks, sharers
from sanbu.run import Run
from sanbu.strategies.strategy import last

BATCH = 512
DRAWING = 0.9  # of the time to measure a run, about


def measure_run(
    run: Run,
    name: str,
    judge: Judge,
    overrides: tuple[str, ...] = (),
    seed: int = 10**6,
    group: str = "",
    progress: Callable[[float], object] = lambda part: None,
) -> Row:
    """The row of one run: draw `judge.count` pictures and score them. progress: called with parts of it, 1 in all."""
    labels = labels_of_data(run, judge.data, judge.count)
    samples, nfe, seconds = draw_pictures(
        run, judge.count, seed, overrides, labels, lambda part: progress(DRAWING * part)
    )
    _, _, alone = draw_pictures(run, 1, seed, overrides, labels)
    row = Row(
        name=name,
        strategy=str(kind_of(run.recipe.strategy)),
        **judge.score(samples),
        nfe=nfe,
        ms_per_image=1000 * seconds / judge.count,
        ms_alone=1000 * alone,
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        group=group or name,
        bits_per_dimension=bits_per_dimension(run, judge.data),
        **training_cost(run),
    )
    progress(1 - DRAWING)
    return row


def labels_of_data(run: Run, data: Any, count: int) -> Tensor:
    """label_N of the test pictures, so that labels are drawn as often as the data has them; repeated as needed."""
    places = data.places["test" if len(data.places["test"]) else "train"]
    return labels_of(run, torch.from_numpy(np.resize(data.labels[some(places, 10 * MOST)], count)))


def labels_of(run: Run, label_N: Tensor) -> Tensor:
    """The labels; 0 for a run without labels."""
    return label_N if run.recipe.data.space().classes else torch.zeros_like(label_N)


def draw_pictures(
    run: Run,
    count: int,
    seed: int,
    overrides: tuple[str, ...] = (),
    labels_N: Tensor | None = None,
    progress: Callable[[float], object] = lambda part: None,
) -> tuple[np.ndarray, int, float]:
    """Pictures, model evaluations per picture, and seconds of sampling (CPU time on a CPU).

    labels_N: the label of each picture; by default as often as the data has them. progress: called with parts of the
    work, 1 in all.
    """
    clock = time.process_time if run.device.type == "cpu" else time.perf_counter
    labels = labels_of_data(run, run.recipe.data.build(), count) if labels_N is None else labels_N[:count]
    drawing = run.drawing(overrides)

    def draw(start: int) -> tuple[list[Any], int, float]:
        since = clock()
        draft = last(drawing.drafts({"label": labels[start : start + BATCH]}, seed + start))
        nfe, seconds = int(draft.evaluations[0]), clock() - since
        progress(sharers() * len(draft.sample) / count)
        return [run.codec.read(row) for row in draft.sample], nfe, seconds

    parts = over_ranks(range(0, count, BATCH), draw)
    found = [picture for pictures, _, _ in parts for picture in pictures]
    return np.stack(found), parts[-1][1], sum(seconds for _, _, seconds in parts)


def bits_per_dimension(run: Run, data: Any, rows: int = 1000) -> float | None:
    """Bits per dimension of test pictures: exact, or a bound with 64 latent draws; None for models without likelihood.

    Exact values and bounds are not comparable.
    """
    judges = {"pixels": Likelihood(), "latent": ImportanceWeighted(draws=64)}
    config = judges.get(run.recipe.model.family)
    if config is None:
        return None
    return evaluate(config.build(), rounds_of_test_pictures(run, data, rows)).get("bits_per_dimension")


def rounds_of_test_pictures(run: Run, data: Any, rows: int) -> Iterator[Round]:
    """Rounds of up to 100 test pictures, without augmentation."""
    places = some(data.places["test"], rows)
    for start in range(0, len(places), 100):
        taken = data.take(places[start : start + 100])
        taken["label"] = labels_of(run, taken["label"])
        batch = {name: tensor.to(run.device) for name, tensor in taken.items()}
        noise = Noise("likelihood", first_row=start, device=run.device)
        yield Round({"model": run.model}, batch, noise, learning=False)
