"""Strategies side by side: a contest trained and measured, or a person's own runs measured; rows for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from sanbu.config import SanbuError
from sanbu.data.image_rows import Images
from sanbu.evaluation.contest import Contestant, hold
from sanbu.evaluation.picture_metrics import Judge, Row, averaged
from sanbu.evaluation.pictures import measure
from sanbu.progress import progress_rows
from sanbu.run import Run


def compare_contest(contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int) -> list[Row]:
    """Train every contestant for so many CPU seconds and seeds, then measure each way to draw, floors included."""
    data = contestants[0].recipe.data
    assert isinstance(data, Images)
    folder.mkdir(parents=True, exist_ok=True)
    runs = list(hold(contestants, folder, seconds, seeds))
    return measured(Judge(data), [(each, run) for each, _, run in runs])


def compare_runs(folders: Sequence[Path]) -> list[Row]:
    """Measure runs of pictures that learnt from the same data. Raises SanbuError when they did not."""
    runs = [Run.open(folder) for folder in folders]
    first = runs[0].recipe.data
    for run in runs:
        data = run.recipe.data
        if not isinstance(data, Images):
            raise SanbuError(f"{run.folder} is no run of pictures: its data is {data.model_dump()['kind']!r}")
        assert isinstance(first, Images)
        if told(data) != told(first):
            raise SanbuError(
                f"{run.folder} learnt from other pictures than {runs[0].folder}: {told(data)} against {told(first)};"
                " only runs on the same pictures and split can be compared"
            )
    assert isinstance(first, Images)
    return measured(Judge(first), [(Contestant(run.folder.name, run.recipe), run) for run in runs])


def told(data: Images) -> tuple[object, ...]:
    """What must agree for two runs to be compared."""
    return data.path, data.space().shape, data.levels, data.validation, data.test


def measured(judge: Judge, runs: Sequence[tuple[Contestant, Run]]) -> list[Row]:
    """A row for each name and way to draw, averaged over seeds, after the floors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, list[Row]] = {}
    try:
        with progress_rows("measuring", sum(len(each.draws) for each, _ in runs)) as progress:
            for each, run in runs:
                for label, overrides in each.draws:
                    name = f"{each.name}, {label}" if label else each.name
                    found.setdefault(name, []).append(measure(run, name, judge, overrides))
                    progress(1)
    finally:
        torch.set_num_threads(threads)
    return [*judge.floors(), *(averaged(rows) for rows in found.values())]
