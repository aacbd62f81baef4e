"""Searches: ways to find a function, with and without a gradient, on one model and the same pictures."""

from __future__ import annotations

from sanbu.evaluation.contest import Contestant
from sanbu.evaluation.figures import Entry, Figures
from sanbu.evaluation.searches import LOOKS
from sanbu.evaluation.searches import compete as compete_in
from sanbu.recipe import Recipe
from sanbu.recipes.classifiers import digits_classify

SECONDS, SEEDS = 20.0, 1  # CPU seconds of training per search, and runs of each
QUIET = ("schedule.sample_every=0", "schedule.checkpoint_every=0", "machine.device=cpu", "machine.precision=float32")
GRADIENT = {
    "sgd": ("optimizer=sgd", "optimizer.momentum=0.9", "optimizer.rate=linear"),
    "adam": ("optimizer=adam", "optimizer.learning_rate=0.005", "optimizer.rate=linear"),
    "adamw": (),
    "muon": ("optimizer=muon", "optimizer.rest.learning_rate=0.01"),
}
VALUES = {name: (f"optimizer={name}",) for name in ("genetic", "evolution", "snes", "diagonal-cma")}


def compete(entry: Entry) -> Figures:
    """Train every search on the digits, and those that need no gradient on the accuracy too. Setting: path=PICTURES."""
    path = entry.values("searches", path="PICTURES").get("path", "digits")
    seconds, seeds = entry.seconds or SECONDS, entry.seeds or SEEDS
    title = f"{path}: {seconds:g} CPU seconds per search, {seeds} seed{'s' if seeds > 1 else ''}"
    return compete_in(contestants(digits_classify(path)), entry.folder, seconds, seeds, title)


def contestants(recipe: Recipe) -> list[Contestant]:
    """Every search as a recipe."""
    plain = recipe.change(*QUIET)
    found = {name: plain.change(*changes) for name, changes in {**GRADIENT, **VALUES}.items()}
    found |= {f"{name} on accuracy": plain.change(*changes, "objective=accuracy") for name, changes in VALUES.items()}
    looks = (("schedule.evaluate_every", LOOKS),)
    return [Contestant(name, each, divided=looks) for name, each in found.items()]
