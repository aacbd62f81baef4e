"""Comparison of strategies: train and measure a contest, or measure given runs. The result is rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sanbu.config import ConfigError, SanbuError, kind_of
from sanbu.evaluation.contest import Contestant, train_contestants
from sanbu.evaluation.inception import inception
from sanbu.evaluation.options import Measurement, Options, figure_lines, single_run
from sanbu.evaluation.picture_metrics import Judge, Row, mean_row
from sanbu.evaluation.pictures import measure_run
from sanbu.evaluation.report import row_figures, write
from sanbu.progress import progress_rows
from sanbu.run import Run


def compare_contest(contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int) -> list[Row]:
    """Train every contestant for `seconds` of CPU time per seed, then measure each way to sample, after the floors."""
    data = contestants[0].recipe.data
    folder.mkdir(parents=True, exist_ok=True)
    runs = list(train_contestants(contestants, folder, seconds, seeds))
    return measure_rows(Judge(data), [(contestant, run) for contestant, _, run in runs])


def compare(runs: Sequence[Run | Path | str], folder: Path | str | None = None) -> list[Row]:
    """Rows of runs of pictures, after the floors. folder: where to write compare.html, .png and .json, if given."""
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    rows = compare_runs(opened)
    if folder is not None:
        write(rows, Path(folder), ", ".join(run.folder.name for run in opened))
    return rows


def compare_runs(runs: Sequence[Run]) -> list[Row]:
    """Measure runs of pictures trained on the same data. Raises SanbuError if they were not."""
    for run in runs:
        if run.codec.medium != "image":
            raise SanbuError(f"{run.folder} is not a run of pictures: its data is {kind_of(run.recipe.data)!r}")
        if data_identity(run) != data_identity(runs[0]):
            raise SanbuError(
                f"{run.folder} was trained on other pictures than {runs[0].folder}: {data_identity(run)} against"
                f" {data_identity(runs[0])}; only runs on the same pictures and split can be compared"
            )
    contestants = [(Contestant(run.folder.name, run.recipe), run) for run in runs]
    return measure_rows(Judge(runs[0].recipe.data), contestants)


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """The row of a comparison for one run of pictures, and Inception distances if options.inception > 0."""
    run = single_run(runs)
    if options.data is not None:
        raise ConfigError(f"--data: given {options.data!r}, but {run.folder} is a run of pictures; leave --data out")
    found = row_figures(compare_runs([run])[-1])
    if options.inception:
        found |= inception(run.to("auto"), options.inception)
    return {"run": str(run.folder), **found}, figure_lines(found)


def data_identity(run: Run) -> tuple[object, ...]:
    """The properties of the data that must be equal in compared runs."""
    data: Any = run.recipe.data
    return data.path, data.space().shape, data.levels, data.validation, data.test


def measure_rows(judge: Judge, runs: Sequence[tuple[Contestant, Run]]) -> list[Row]:
    """One row per contestant and way to sample, averaged over seeds, after the floors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, list[Row]] = {}
    try:
        with progress_rows("measuring", sum(len(contestant.draws) for contestant, _ in runs)) as progress:
            for contestant, run in runs:
                for label, overrides in contestant.draws:
                    name = f"{contestant.name}, {label}" if label else contestant.name
                    found.setdefault(name, []).append(measure_run(run, name, judge, overrides))
                    progress(1)
    finally:
        torch.set_num_threads(threads)
    return [*judge.floors(), *(mean_row(rows) for rows in found.values())]
