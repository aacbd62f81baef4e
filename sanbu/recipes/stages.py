"""A life: stages trained one after another, each a run that begins from the one before it. It goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sanbu.config import ConfigError, nearest
from sanbu.loop import train
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.watcher import Watcher


@dataclass(frozen=True)
class Stage:
    """A run of a life: its recipe, given the folder of the life, and what has to be made first."""

    name: str
    recipe: Callable[[Path], Recipe]
    before: Callable[[Path], object] = lambda folder: None


def train_stages(
    stages: Sequence[Stage], folder: Path, overrides: Sequence[str], watchers: Sequence[Watcher] | None = None
) -> dict[str, Run]:
    """Train every stage that is not done yet. Overrides name their stage: sft.schedule.steps=100.

    A stage begun earlier goes on from its checkpoint, bit for bit, with the recipe it was begun with.
    """
    chosen = divided(stages, overrides)
    runs: dict[str, Run] = {}
    for stage in stages:
        place = folder / stage.name
        begun = (place / "recipe.json").exists()
        if begun:
            run = Run.open(place)
            if not finished(run):
                run = train(run.recipe, place, resume=True, watchers=watchers)
        else:
            stage.before(folder)
            run = train(stage.recipe(folder).change(*chosen[stage.name]), place, watchers=watchers)
        runs[stage.name] = run
        if not finished(run):
            break
    return runs


def finished(run: Run) -> bool:
    """Whether a run has made all its steps, or ran out of patience."""
    rows = run.metrics()
    return bool(rows) and (rows[-1]["step"] >= run.recipe.schedule.steps or (run.folder / "stopped.json").exists())


def divided(stages: Sequence[Stage], overrides: Sequence[str]) -> dict[str, list[str]]:
    """Overrides by stage. Raises ConfigError for one that names no stage."""
    names = [stage.name for stage in stages]
    found: dict[str, list[str]] = {name: [] for name in names}
    for text in overrides:
        stage, _, rest = text.partition(".")
        if stage not in found or not rest:
            raise ConfigError(
                f"{text!r} names no stage; write STAGE.path=value, stages: {', '.join(names)}{nearest(stage, names)}"
            )
        found[stage].append(rest)
    return found
