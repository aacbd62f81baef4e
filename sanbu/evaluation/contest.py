"""A contest: several recipes, trained on the same pictures for the same CPU time, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanbu.config import SanbuError, dump, load
from sanbu.files import read_json, write_json
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
    with progress_tasks("training", seeds * sum(each.share * seconds for each in contestants)) as progress:
        for seed in range(seeds):
            for contestant in contestants:
                place = folder / "runs" / f"{contestant.name}-{seed}"
                budget = seconds * contestant.share
                if not (place / "cost.json").exists():
                    train_in_process(contestant, place, seed, budget, progress)
                spent = read_json(place / "cost.json")["budget"]
                if spent != budget:
                    raise SanbuError(
                        f"{place} was trained for {spent:g} CPU seconds, not {budget:g}; give another --run"
                    )
                progress(budget, f"{contestant.name}, seed {seed}")
                yield contestant, seed, Run.open(place)


def train_in_process(contestant: Contestant, place: Path, seed: int, seconds: float, progress: Any) -> None:
    """Train in a fresh process, so that CPU time and peak memory can be measured. Raises SanbuError if it fails."""
    recipe = contestant.recipe.change(f"schedule.seed={seed}", "machine.threads=1")
    if contestant.parent:
        recipe = recipe.change(parents={"model": str(place.parent / f"{contestant.parent}-{seed}")})
    context = multiprocessing.get_context("spawn")
    arguments = (json.dumps(dump(recipe)), str(place), seconds, contestant.divided)
    child = context.Process(target=train_within, args=arguments)
    child.start()
    while child.is_alive():
        child.join(0.5)
        progress(0, f"{contestant.name}, seed {seed}")
    if child.exitcode:
        raise SanbuError(
            f"the training of {contestant.name}, seed {seed}, ended with code {child.exitcode}; see {place}"
        )


def train_within(recipe_json: str, place: str, seconds: float, divided: Sequence[tuple[str, int]]) -> None:
    """(In a child process) Train the number of steps that fits the budget, and write cost.json."""
    from sanbu.loop import train

    try:
        if (Path(place) / "recipe.json").exists():
            run = train(Run.open(place).recipe, place, resume=True)
        else:
            recipe = load(Recipe, json.loads(recipe_json))
            steps = steps_within(recipe, seconds)
            changes = [f"schedule.steps={steps}"]
            changes += [f"{path}={max(1, steps // by)}" for path, by in divided]
            run = train(recipe.change(*changes), place)
    except SanbuError as error:
        sys.exit(f"sanbu: {error}")
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
