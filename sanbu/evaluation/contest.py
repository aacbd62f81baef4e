"""A contest: several recipes, trained on the same pictures for the same CPU time, side by side on the cores."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbu.config import SanbuError, dump, load
from sanbu.evaluation.jobs import Job, Jobs, cores
from sanbu.files import read_json, write_json
from sanbu.machine import find_device
from sanbu.progress import progress_tasks
from sanbu.recipe import Recipe
from sanbu.run import Run

Draw = tuple[str, tuple[str, ...]]  # a way to sample: its label and its overrides


@dataclass(frozen=True)
class Contestant:
    """A recipe, its share of the budget, and the ways to sample from it (`draws`), each a row of the table.

    parent: the contestant whose run initializes this one; its training time is added. divided: overrides that depend on
    the number of steps, as (path, divisor) for path = steps // divisor.
    """

    name: str
    recipe: Recipe
    draws: tuple[Draw, ...] = (("", ()),)
    share: float = 1.0
    parent: str = ""
    divided: tuple[tuple[str, int], ...] = ()


def train_contestants(
    contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int
) -> Iterator[tuple[Contestant, int, Run]]:
    """Train the contestants that are not trained yet and yield the run of each, per seed. Can be interrupted."""
    do_jobs(
        "training", training_jobs(contestants, folder, seconds, seeds), folder / "jobs.log", workers_for(contestants)
    )
    for seed in range(seeds):
        for contestant in contestants:
            yield contestant, seed, Run.open(place_of(folder, contestant.name, seed))


def do_jobs(title: str, jobs: Sequence[Job], log: Path, workers: int) -> None:
    """Do the jobs of a contest with progress, so many at once."""
    everything = Jobs(jobs, workers, log)
    done = everything.done()
    with progress_tasks(title, sum(job.seconds for job in jobs) - done) as progress:
        for _ in everything.work():
            now = everything.done()
            progress(now - done, some(list(everything.running)))
            done = now


def some(names: Sequence[str], most: int = 3) -> str:
    """Names in a line, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def workers_for(contestants: Sequence[Contestant]) -> int:
    """Processes at once: one per CPU core, so that none waits for another; one if a device is shared."""
    on_cpu = all(find_device(each.recipe.machine.device).type == "cpu" for each in contestants)
    return cores() if on_cpu else 1


def place_of(folder: Path, name: str, seed: int) -> Path:
    """The run folder of a contestant."""
    return folder / "runs" / f"{name}-{seed}"


def training_jobs(contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int) -> list[Job]:
    """A job for each contestant and seed. Raises SanbuError if one was trained with another budget."""
    jobs = []
    for seed in range(seeds):
        for contestant in contestants:
            place, budget = place_of(folder, contestant.name, seed), seconds * contestant.share
            spent = read_json(place / "cost.json")["budget"] if (place / "cost.json").exists() else budget
            if spent != budget:
                raise SanbuError(f"{place} was trained for {spent:g} CPU seconds, not {budget:g}; give another --run")
            recipe = contestant.recipe.change(f"schedule.seed={seed}", "machine.threads=1")
            if contestant.parent:
                recipe = recipe.change(parents={"model": str(place_of(folder, contestant.parent, seed))})
            jobs.append(
                Job(
                    name=place.name,
                    work=train_within,
                    arguments=(json.dumps(dump(recipe)), str(place), budget, contestant.divided),
                    made=place / "cost.json",
                    seconds=budget,
                    run=place,
                    after=(f"{contestant.parent}-{seed}",) if contestant.parent else (),
                )
            )
    return jobs


def train_within(recipe_json: str, place: str, seconds: float, divided: Sequence[tuple[str, int]]) -> None:
    """Train the number of steps that fits the budget, and write cost.json, in a process of its own."""
    from sanbu.loop import train

    if (Path(place) / "recipe.json").exists():
        run = train(Run.open(place).recipe, place, resume=True, watchers=[])
    else:
        recipe = load(Recipe, json.loads(recipe_json))
        steps = steps_within(recipe, seconds)
        changes = [f"schedule.steps={steps}"]
        changes += [f"{path}={max(1, steps // by)}" for path, by in divided]
        run = train(recipe.change(*changes), place, watchers=[])
    if run.finished():
        cpu = sum(row["time/cpu_seconds"] for row in run.metrics())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        write_json(run.folder / "cost.json", {"training_cpu_seconds": cpu, "memory_mb": peak, "budget": seconds})


def steps_within(recipe: Recipe, seconds: float) -> int:
    """The number of steps that fits `seconds` of CPU time, estimated from the median of a few steps."""
    from sanbu.machine import decide
    from sanbu.training import Training

    recipe = recipe.resolve()
    training = Training(recipe, decide(recipe.machine))
    times: list[float] = []
    while len(times) < 12 or (sum(times) < seconds / 40 and len(times) < 200):
        since = time.process_time()
        while not training.advance():
            pass
        times.append(time.process_time() - since)
    measured = sorted(times[4:])  # the first four steps warm up
    return max(1, round(seconds / measured[len(measured) // 2]))


def training_cost(run: Run) -> dict[str, Any]:
    """CPU seconds of a run's training, including those of its parent, and peak memory in MB where it was measured."""
    path = run.folder / "cost.json"
    own = read_json(path) if path.exists() else {}
    seconds = own.get("training_cpu_seconds", sum(row.get("time/cpu_seconds", 0.0) for row in run.metrics()))
    if "model" in run.recipe.parents:
        parent = Run.open(run.recipe.parents["model"])
        seconds += training_cost(parent)["training_cpu_seconds"]
    return {"training_cpu_seconds": seconds, **({"memory_mb": own["memory_mb"]} if own else {})}
