"""Ways to learn from few labels on the same pictures, for the same CPU time, with several choices of the labels.

Accuracy is that of the averaged model on the test pictures, which nothing is chosen by; the curves are of validation
pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from sanbu.config import ConfigError, SanbuError, dump, load
from sanbu.data.few_labels import FewLabelRows
from sanbu.evaluation.contest import do_jobs, steps_within
from sanbu.evaluation.figures import Figures, Panel, Shown
from sanbu.evaluation.jobs import Job, cores
from sanbu.files import read_json, write_json
from sanbu.objectives.few_labels import FixMatch, GuessConfig, PseudoLabel
from sanbu.recipe import Recipe
from sanbu.run import Run

EXPECTED = 0.8  # of the unlabelled pictures, learnt from on average; the cost of a step depends on how many are
LOOKS = 10  # points of a curve
BASELINE = "supervised"
LAST = 50  # steps over which the figures of pseudo-labels are averaged
AT_ONCE = 1000
COLUMNS = (
    Shown("name", "method", "s"),
    Shown("accuracy", "accuracy"),
    Shown("spread", "spread", ".3f", 1),
    Shown("lowest", "lowest", ".3f", 2),
    Shown("steps", "steps", ",.0f", 3),
    Shown("seconds", "CPU s", ".1f", 4),
    Shown("sure", "confident", ".2f", 5),
    Shown("right", "of these right", ".3f", 6),
)
NOTES = (
    "Accuracy: of the averaged weights on test pictures, mean over choices of the labelled pictures; spread: its"
    " standard deviation. CPU s: measured, with pretraining. Confident: the fraction of unlabelled pictures"
    " whose pseudo-label counted in the last steps; of these right: by their hidden labels, which no method reads."
)


@dataclass(frozen=True)
class Learner:
    """A way to learn. first: a recipe for half of the time, whose weights the other begins from."""

    name: str
    recipe: Recipe
    first: Recipe | None = None


def compete(learners: Sequence[Learner], folder: Path, seconds: float, draws: int, title: str) -> Figures:
    """Train every learner on every choice of the labels, and measure it."""
    jobs = jobs_of(learners, folder, seconds, draws)
    do_jobs("comparing", jobs, folder / "jobs.log", cores())
    rows = [row_of(each, folder, draws) for each in learners]
    curves = {row["name"]: row.pop("curve") for row in rows}
    panel = Panel("CPU seconds", "accuracy on validation pictures", curves)
    return Figures(title, COLUMNS, rows, advice(rows), [panel], frozenset({BASELINE}), NOTES)


def jobs_of(learners: Sequence[Learner], folder: Path, seconds: float, draws: int) -> list[Job]:
    """A job per learner and choice of the labels. Raises SanbuError if one was done with another budget."""
    jobs: list[Job] = []
    for draw in range(draws):
        for each in learners:
            place = place_of(folder, each.name, draw)
            made = place / "figures.json"
            before = read_json(made)["budget"] if made.exists() else seconds
            if before != seconds:
                raise SanbuError(f"{place} was trained for {before:g} CPU seconds, not {seconds:g}; give another --run")
            recipe = each.recipe.change(f"data.draw={draw}", f"schedule.seed={draw}")
            first = each.first.change(f"schedule.seed={draw}") if each.first is not None else None
            values = json.dumps([dump(one) for one in (first, recipe) if one is not None])
            arguments = values, str(place), seconds
            jobs.append(Job(place.name, learn, arguments, made, seconds + 5, place))
    return jobs


def place_of(folder: Path, name: str, draw: int) -> Path:
    """The run folder of a learner."""
    return folder / "runs" / f"{name}-{draw}"


def learn(recipes_json: str, place: str, seconds: float) -> None:
    """(In a process of its own) Train the recipes one after another, each for its part of the time, and measure."""
    recipes = [load(Recipe, values) for values in json.loads(recipes_json)]
    spent = 0.0
    for number, recipe in enumerate(recipes):
        last = number == len(recipes) - 1
        folder = Path(place) if last else Path(place + "-first")
        if number:
            recipe = recipe.change(parents={"model": place + "-first"})
        run = train_for(recipe, folder, seconds - spent if last else seconds / len(recipes))
        if not run.finished():
            return
        spent += sum(row["time/cpu_seconds"] for row in run.metrics())
    write_json(Path(place) / "figures.json", {**figures_of(run, spent), "budget": seconds})


def train_for(recipe: Recipe, folder: Path, seconds: float) -> Run:
    """Train the number of steps that fits, or go on where it was interrupted."""
    from sanbu.loop import train

    if (folder / "recipe.json").exists():
        return train(Run.open(folder).recipe, folder, resume=True, watchers=[])
    steps = steps_for(recipe, seconds)
    return train(recipe, folder, watchers=[], steps=steps, evaluate_every=max(1, steps // LOOKS))


def steps_for(recipe: Recipe, seconds: float) -> int:
    """The steps that fit: a step costs more, the more pseudo-labels are above the threshold; at first none is."""
    objective = recipe.objective
    if not isinstance(objective, GuessConfig):
        return steps_within(recipe, seconds)
    kind = PseudoLabel if isinstance(objective, PseudoLabel) else FixMatch
    none, every = (recipe.change(objective=kind(threshold=threshold)) for threshold in (1.0, 0.0))
    cheap, dear = 1 / steps_within(none, seconds), 1 / steps_within(every, seconds)
    return max(1, round(1 / (EXPECTED * dear + (1 - EXPECTED) * cheap)))


def figures_of(run: Run, spent: float) -> dict[str, Any]:
    """The figures of a run; spent: CPU seconds, with those before it."""
    rows = run.metrics()
    before, curve = spent - sum(row["time/cpu_seconds"] for row in rows), []
    seconds = before
    for row in rows:
        seconds += row["time/cpu_seconds"]
        if "held_out/accuracy" in row:
            curve.append((round(seconds, 2), row["held_out/accuracy"]))
    found = {"accuracy": test_accuracy(run), "steps": len(rows), "seconds": spent, "curve": curve}
    for name in ("sure", "right"):
        values = [row[name] for row in rows[-LAST:] if name in row]
        found |= {name: mean(values)} if values else {}
    return found


def test_accuracy(run: Run) -> float:
    """The fraction of test pictures whose label is found. Raises SanbuError if there are none."""
    data: Any = run.recipe.data.build()
    assert isinstance(data, FewLabelRows)
    batch = data.part("test")
    if not len(batch["label"]):
        raise SanbuError(f"data.test: {run.folder} has no test pictures; raise data.test")
    with torch.no_grad():
        found = torch.cat([run.model(part).argmax(1) for part in batch["image"].split(AT_ONCE)])
    return float((found == batch["label"]).float().mean())


def row_of(learner: Learner, folder: Path, draws: int) -> dict[str, Any]:
    """The mean of the figures of one learner over the choices of the labels."""
    found = [read_json(place_of(folder, learner.name, draw) / "figures.json") for draw in range(draws)]
    each = [one["accuracy"] for one in found]
    row: dict[str, Any] = {"name": learner.name, "spread": stdev(each) if draws > 1 else None, "lowest": min(each)}
    for name in ("accuracy", "steps", "seconds", "sure", "right"):
        values = [one[name] for one in found if name in one]
        row[name] = mean(values) if values else None
    points = zip(*(one["curve"] for one in found), strict=False)
    curve = [tuple(map(mean, zip(*several, strict=True))) for several in points]
    return row | {"each": each, "curve": curve}


def advice(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows say, in sentences."""
    best = max(rows, key=lambda row: row["accuracy"])
    base = next((row for row in rows if row["name"] == BASELINE), None)
    if base is None:
        return [f"Best: {best['name']} finds {best['accuracy']:.1%} of the labels."]
    if best is base:
        return [f"No method is better than {base['name']} in this time ({base['accuracy']:.3f})."]
    gain = 100 * (best["accuracy"] - base["accuracy"])
    return [
        f"Best: {best['name']} finds {best['accuracy']:.1%} of the labels, {gain:.1f} points more than {base['name']}"
        f" in the same CPU time ({base['accuracy']:.1%})."
    ]


def whole(name: str, text: str) -> int:
    """A setting that is a number. Raises ConfigError."""
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"{name}: given {text!r}, but a whole number is needed, as in {name}=40")
    return int(text)
