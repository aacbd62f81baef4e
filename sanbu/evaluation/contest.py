"""A contest: several recipes, each trained for the same CPU time on the same pictures, each in a process of its own."""

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

from sanbu.config import SanbuError, dump, load, override
from sanbu.files import read_json, write_json
from sanbu.progress import progress_seconds
from sanbu.recipe import Recipe
from sanbu.run import Run

Draw = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Contestant:
    """A recipe, its share of the budget, and the ways to draw from it, each a row of the table.

    parent: the contestant whose run it starts from, and whose training time counts as its own. overrides: those that
    depend on the number of steps, as {path: divisor}.
    """

    name: str
    recipe: Recipe
    draws: tuple[Draw, ...] = (("", ()),)
    share: float = 1.0
    parent: str = ""
    divided: tuple[tuple[str, int], ...] = ()


def hold(
    contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int
) -> Iterator[tuple[Contestant, int, Run]]:
    """Train whoever is not trained yet and yield everybody's runs. Killed, it goes on where it was."""
    with progress_seconds("training", seeds * sum(each.share * seconds for each in contestants)) as progress:
        for seed in range(seeds):
            for each in contestants:
                place = folder / "runs" / f"{each.name}-{seed}"
                if not (place / "cost.json").exists():
                    train_apart(each, place, seed, seconds, folder, progress)
                if (budget := read_json(place / "cost.json")["budget"]) != seconds * each.share:
                    raise SanbuError(
                        f"{place} was trained for {budget:g} CPU seconds, not {seconds * each.share:g};"
                        " give another --run"
                    )
                progress(each.share * seconds, f"{each.name}, seed {seed}")
                yield each, seed, Run.open(place)


def train_apart(each: Contestant, place: Path, seed: int, seconds: float, folder: Path, progress: Any) -> None:
    """One training run in a fresh process, whose time and memory are then its own."""
    recipe = override(each.recipe, [f"schedule.seed={seed}", "machine.threads=1"])
    if each.parent:
        parents = {"model": str(folder / "runs" / f"{each.parent}-{seed}")}
        recipe = recipe.model_copy(update={"parents": parents})
    context = multiprocessing.get_context("spawn")
    given = (json.dumps(dump(recipe)), str(place), seconds * each.share, each.divided)
    child = context.Process(target=contend, args=given)
    child.start()
    while child.is_alive():
        child.join(0.5)
        progress(0, f"{each.name}, seed {seed}")
    if child.exitcode:
        raise SanbuError(f"the training of {each.name}, seed {seed}, ended with code {child.exitcode}; see {place}")


def contend(recipe_json: str, place: str, seconds: float, divided: Sequence[tuple[str, int]]) -> None:
    """In a child: find how many steps fit the budget, train them, note what they cost."""
    from sanbu.loop import train

    try:
        if (Path(place) / "recipe.json").exists():
            run = train(Run.open(place).recipe, place, resume=True)
        else:
            recipe = load(Recipe, json.loads(recipe_json))
            steps = steps_within(recipe, seconds)
            changes = [f"schedule.steps={steps}", *(f"{path}={max(1, steps // by)}" for path, by in divided)]
            run = train(override(recipe, changes), place)
    except SanbuError as error:
        sys.exit(f"sanbu: {error}")
    cpu = sum(row["time/cpu_seconds"] for row in run.metrics())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write_json(run.folder / "cost.json", {"training_cpu_seconds": cpu, "memory_mb": peak, "budget": seconds})


def steps_within(recipe: Recipe, seconds: float) -> int:
    """How many rounds fit so many CPU seconds, from the median of a few."""
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
    return max(1, round(seconds / sorted(times[4:])[len(times[4:]) // 2]))


def cost(run: Run) -> dict[str, Any]:
    """What a run's training cost, its parent's included: CPU seconds and, where it was measured, peak memory in MB."""
    path = run.folder / "cost.json"
    own = read_json(path) if path.exists() else {}
    seconds = own.get("training_cpu_seconds", sum(row.get("time/cpu_seconds", 0.0) for row in run.metrics()))
    if "model" in run.recipe.parents:
        seconds += cost(Run.open(run.recipe.parents["model"]))["training_cpu_seconds"]
    return {"training_cpu_seconds": seconds, **({"memory_mb": own["memory_mb"]} if own else {})}
