"""Few labels: learning with and without the pictures that have none, for the same CPU time."""

from __future__ import annotations

from pathlib import Path

from sanbu.config import ConfigError, change, nearest
from sanbu.data.image_rows import Images
from sanbu.evaluation.few_labels import Learner, whole
from sanbu.evaluation.few_labels import compete as compete_in
from sanbu.evaluation.figures import Entry, Figures
from sanbu.recipe import Recipe
from sanbu.recipes.labels import METHODS, few_labels, reconstruct

SECONDS, DRAWS = 30.0, 3
TEST = 1 / 6  # of the pictures
PRETRAINED = "pretrained"
QUIET = (
    "schedule.checkpoint_every=0",
    "machine.device=cpu",
    "machine.threads=1",
    "machine.precision=float32",
)


def compete(entry: Entry) -> Figures:
    """Train every method on the same pictures and measure it. Settings: path=PICTURES, labels=N, methods=A,B."""
    given = entry.values("few-labels", path="PICTURES", labels="N", methods="A,B")
    path, labels = given.get("path", "digits"), whole("labels", given.get("labels", "40"))
    seconds, draws = entry.seconds or SECONDS, entry.seeds or DRAWS
    several = "s" if draws > 1 else ""
    title = f"{Path(path).name}, {labels} labels: {seconds:g} CPU seconds each, {draws} choice{several} of the labels"
    return compete_in(chosen(learners(path, labels), given.get("methods", "")), entry.folder, seconds, draws, title)


def learners(path: str, labels: int) -> list[Learner]:
    """Every method on the same pictures; the baseline first."""
    made = {name: recipe(few_labels(path=path, labels=str(labels), method=name)) for name in METHODS}
    first = reconstruct(path).change(*QUIET, data=change(Images(path=path), {"test": TEST, "classes": 0}).resolve())
    return [
        *(Learner(name, each) for name, each in made.items()),
        Learner(PRETRAINED, made["supervised"], first),
    ]


def chosen(found: list[Learner], methods: str) -> list[Learner]:
    """The learners of these names, all without names. Raises ConfigError for another name."""
    names = methods.split(",") if methods else [each.name for each in found]
    known = {each.name: each for each in found}
    for name in names:
        if name not in known:
            raise ConfigError(f"methods: given {name!r}, allowed: {', '.join(known)}{nearest(name, known)}")
    return [known[name] for name in dict.fromkeys(names)]


def recipe(made: Recipe) -> Recipe:
    """A recipe on the split of this contest."""
    return made.change(*QUIET, data=change(made.data, {"test": TEST}).resolve())
