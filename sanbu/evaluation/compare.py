"""Comparison of strategies: train and measure a contest, or measure given runs. The result is rows of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from sanbu.config import ConfigError, SanbuError, kind_of
from sanbu.data.data import DataConfig
from sanbu.evaluation.contest import Contestant, do_jobs, place_of, training_jobs, workers_for
from sanbu.evaluation.floors import FLOORS
from sanbu.evaluation.inception import inception
from sanbu.evaluation.jobs import Job
from sanbu.evaluation.options import Measurement, Options, figure_lines, single_run
from sanbu.evaluation.picture_metrics import Judge, Row, mean_row
from sanbu.evaluation.pictures import measure_run
from sanbu.evaluation.report import row_figures, write
from sanbu.evaluation.same_pictures import check_same_pictures
from sanbu.files import read_json, write_json
from sanbu.progress import progress_tasks
from sanbu.run import Run

SEEDS = 3  # of the baselines
FLOOR_SECONDS, MEASURE_SECONDS = 20, 1.5  # that measuring takes about: all the floors, and one way to sample


def compare_contest(contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int) -> list[Row]:
    """Train every contestant for `seconds` of CPU time per seed, then measure each way to sample, after the floors."""
    for earlier in (folder / "rows").glob("*.json"):
        earlier.unlink()
    jobs = contest_jobs(contestants, folder, seconds, seeds)
    do_jobs("comparing", jobs, folder / "jobs.log", workers_for(contestants))
    return read_rows(contestants, folder)


def contest_jobs(contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int) -> list[Job]:
    """The jobs of a contest: training, and then measuring, which writes the rows of each contestant into a file."""
    jobs = training_jobs(contestants, folder, seconds, seeds)
    floors = folder / "rows" / "floors.json"
    jobs.append(Job("floors", write_floors, (contestants[0].recipe.data, floors), floors, FLOOR_SECONDS))
    for each in contestants:
        places = [place_of(folder, each.name, seed) for seed in range(seeds)]
        made, needed = floors.with_name(f"{each.name}.json"), tuple(place.name for place in places)
        took = MEASURE_SECONDS * len(each.draws) * seeds
        jobs.append(Job(f"{each.name}, measured", write_rows, (each, places, made), made, took, after=needed))
    return jobs


def write_floors(data: DataConfig, path: Path) -> None:
    """Measure the floors and write their rows into a file."""
    keep_rows(path, Judge(data).floors(SEEDS))


def write_rows(contestant: Contestant, places: Sequence[Path], path: Path) -> None:
    """Measure the runs of one contestant, a run per seed, and write its rows into a file."""
    runs = [(contestant, Run.open(place)) for place in places]
    keep_rows(path, measure_runs(Judge(contestant.recipe.data), runs))


def keep_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [asdict(row) for row in rows])


def read_rows(contestants: Sequence[Contestant], folder: Path) -> list[Row]:
    """The rows that the jobs of a contest wrote: of the floors, and of each contestant."""
    names = ["floors", *(each.name for each in contestants)]
    return [Row(**row) for name in names for row in read_json(folder / "rows" / f"{name}.json")]


def compare(runs: Sequence[Run | Path | str], folder: Path | str | None = None) -> list[Row]:
    """Rows of runs of pictures, after the floors. folder: where to write compare.html, .png and .json, if given."""
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    rows = compare_runs(opened)
    if folder is not None:
        write(rows, Path(folder), ", ".join(names_of(opened)))
    return rows


def compare_runs(runs: Sequence[Run]) -> list[Row]:
    """Measure runs of pictures trained on the same data, a row each. Raises SanbuError if they were not."""
    names = names_of(runs)
    judge = Judge(pictures_of(runs))
    return measure_rows(judge, [(Contestant(name, run.recipe), run) for name, run in zip(names, runs, strict=True)])


def pictures_of(runs: Sequence[Run]) -> DataConfig:
    """The data that all the runs were trained on. Raises SanbuError if they were trained on other data."""
    for run in runs:
        if run.codec.medium != "image":
            raise SanbuError(f"{run.folder} is not a run of pictures: its data is {kind_of(run.recipe.data)!r}")
    return check_same_pictures(runs).recipe.data


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: the end of its path, as long as it must be to tell it from the others.

    Raises ConfigError if one is given twice.
    """
    parts = [run.folder.resolve().parts for run in runs]
    twice = next((run for run, each in zip(runs, parts, strict=True) if parts.count(each) > 1), None)
    if twice is not None:
        raise ConfigError(f"compare: {twice.folder} is given more than once")

    def name(each: tuple[str, ...]) -> str:
        lengths = range(1, len(each) + 1)
        found = next(n for n in lengths if sum(other[-n:] == each[-n:] for other in parts) == 1)
        return "/".join(part.strip("/") for part in each[-found:])

    return [name(each) for each in parts]


def measure(runs: Sequence[Run], options: Options) -> Measurement:
    """The row of a comparison for one run of pictures, and Inception distances if options.inception > 0."""
    run = single_run(runs)
    if options.data is not None:
        raise ConfigError(f"--data: given {options.data!r}, but {run.folder} is a run of pictures; leave --data out")
    judge = Judge(pictures_of(runs))
    found = row_figures(measure_runs(judge, [(Contestant(run.folder.resolve().name, run.recipe), run)])[0])
    if options.inception:
        found |= inception(run.to("auto"), options.inception)
    return {"run": str(run.folder), **found}, figure_lines(found)


def measure_rows(judge: Judge, runs: Sequence[tuple[Contestant, Run]]) -> list[Row]:
    """The floors, then one row per contestant and way to sample, averaged over seeds."""
    rows = measure_runs(judge, runs)
    with progress_tasks("measuring baselines", SEEDS * len(FLOORS)) as progress:
        floors = judge.floors(SEEDS, lambda name: progress(1, name))
    return [*floors, *rows]


def progress_of(progress: Callable[[float, str], None], name: str, part: float) -> None:
    """Report a part of the work on the run of that name."""
    progress(part, name)


def measure_runs(judge: Judge, runs: Sequence[tuple[Contestant, Run]]) -> list[Row]:
    """One row per contestant and way to sample, averaged over seeds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, list[Row]] = {}
    try:
        with progress_tasks("measuring", sum(len(contestant.draws) for contestant, _ in runs)) as progress:
            for contestant, run in runs:
                for label, overrides in contestant.draws:
                    name = f"{contestant.name}, {label}" if label else contestant.name
                    say = partial(progress_of, progress, name)
                    row = measure_run(run, name, judge, overrides, group=contestant.name, progress=say)
                    found.setdefault(name, []).append(row)
    finally:
        torch.set_num_threads(threads)
    return [mean_row(rows) for rows in found.values()]
