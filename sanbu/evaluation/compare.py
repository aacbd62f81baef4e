"""Strategies side by side: a contest trained and measured, or a person's own runs measured; rows for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sanbu.config import ConfigError, SanbuError, kind_of
from sanbu.evaluation.contest import Contestant, hold
from sanbu.evaluation.inception import inception
from sanbu.evaluation.options import Measured, Options, lines_of, only
from sanbu.evaluation.picture_metrics import Judge, Row, averaged
from sanbu.evaluation.pictures import measure_run
from sanbu.evaluation.report import plain, write
from sanbu.progress import progress_rows
from sanbu.run import Run


def compare_contest(contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int) -> list[Row]:
    """Train every contestant for so many CPU seconds and seeds, then measure each way to draw, floors included."""
    data = contestants[0].recipe.data
    folder.mkdir(parents=True, exist_ok=True)
    runs = list(hold(contestants, folder, seconds, seeds))
    return measured(Judge(data), [(each, run) for each, _, run in runs])


def compare(runs: Sequence[Run | Path | str], folder: Path | str | None = None) -> list[Row]:
    """Runs of pictures side by side, after the floors; folder: where compare.html, .png and .json go, if anywhere."""
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    rows = compare_runs(opened)
    if folder is not None:
        write(rows, Path(folder), ", ".join(run.folder.name for run in opened))
    return rows


def compare_runs(runs: Sequence[Run]) -> list[Row]:
    """Measure runs of pictures trained on the same data. Raises SanbuError when they were not."""
    for run in runs:
        if run.codec.medium != "image":
            raise SanbuError(f"{run.folder} is not a run of pictures: its data is {kind_of(run.recipe.data)!r}")
        if identity(run) != identity(runs[0]):
            raise SanbuError(
                f"{run.folder} was trained on other pictures than {runs[0].folder}: {identity(run)} against"
                f" {identity(runs[0])}; only runs on the same pictures and split can be compared"
            )
    return measured(Judge(runs[0].recipe.data), [(Contestant(run.folder.name, run.recipe), run) for run in runs])


def measure(runs: Sequence[Run], options: Options) -> Measured:
    """The row of a comparison for one run of pictures, and Inception distances where they are asked for."""
    run = only(runs)
    if options.data is not None:
        raise ConfigError("--data: a run of pictures is evaluated on its own test part")
    found = plain(compare_runs([run])[-1])
    if options.inception:
        found |= inception(run.to("auto"), options.inception)
    return {"run": str(run.folder), **found}, lines_of(found)


def identity(run: Run) -> tuple[object, ...]:
    """What must agree for two runs to be compared."""
    data: Any = run.recipe.data
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
                    found.setdefault(name, []).append(measure_run(run, name, judge, overrides))
                    progress(1)
    finally:
        torch.set_num_threads(threads)
    return [*judge.floors(), *(averaged(rows) for rows in found.values())]
