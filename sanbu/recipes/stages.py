"""A pipeline of stages, each a run that starts from an earlier one; an interrupted pipeline continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from sanbu.checkpoints import PIPELINE
from sanbu.config import ConfigError, nearest
from sanbu.files import write_json
from sanbu.loop import train
from sanbu.progress import error_stream
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.watcher import Watcher


@dataclass(frozen=True)
class Stage:
    """One run of a pipeline: its recipe, given the pipeline's folder, and what to make first.

    stands: whether its run may stand for the whole pipeline (`sanbu.run.Run.open` of the pipeline's folder).
    recipe_name: of the recipe, where it is not the name of the stage.
    """

    name: str
    recipe: Callable[[Path], Recipe]
    before: Callable[[Path], object] = lambda folder: None
    stands: bool = True
    recipe_name: str = ""


def train_stages(
    stages: Sequence[Stage],
    folder: Path,
    overrides: Sequence[str],
    watchers: Sequence[Watcher] | None = None,
    given: Sequence[str] = (),
) -> dict[str, Run]:
    """Train every stage that is not done yet. Overrides name their stage: sft.schedule.steps=100.

    A stage that was started continues from its checkpoint, bit for bit, with its own recipe. given: the arguments and
    overrides of the pipeline, kept for the stages that are trained when it is continued (`pipelines.continued`).
    """
    chosen = split_overrides(stages, overrides)
    runs: dict[str, Run] = {}
    with made(folder):
        write_json(
            folder / PIPELINE, {"stages": [stage.name for stage in stages if stage.stands], "given": list(given)}
        )
        for number, stage in enumerate(stages, 1):
            if watchers is None and not (folder / stage.name / "finished.json").exists():
                error_stream().print(f"stage {number} of {len(stages)}: {stage.name}")
            runs[stage.name] = run = train_stage(stage, folder, chosen[stage.name], watchers)
            if not run.finished():
                break
    return runs


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; if the first stage is refused, take a new one away again."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if new and all(path.name == PIPELINE for path in folder.iterdir()):
            rmtree(folder)
        raise


def train_stage(stage: Stage, folder: Path, overrides: Sequence[str], watchers: Sequence[Watcher] | None = None) -> Run:
    """Train one stage, or continue it, unless it is done. The stages before it are done.

    Raises ConfigError if the stage was started with other settings than the overrides.
    """
    place = folder / stage.name
    if (place / "recipe.json").exists():
        run = Run.open(place)
        for text in overrides:
            if run.recipe.change(text) != run.recipe:
                known = "leave it out, or train into another folder: --run FOLDER"
                raise ConfigError(f"{stage.name}.{text}: given, but {place} was started with another setting; {known}")
        return run if run.finished() else train(run.recipe, place, resume=True, watchers=watchers)
    stage.before(folder)
    return train(stage.recipe(folder).change(*overrides), place, watchers=watchers)


def split_overrides(stages: Sequence[Stage], overrides: Sequence[str]) -> dict[str, list[str]]:
    """Overrides by stage. Raises ConfigError for one that does not name a stage."""
    names = [stage.name for stage in stages]
    found: dict[str, list[str]] = {name: [] for name in names}
    for text in overrides:
        stage, _, rest = text.partition(".")
        if stage not in found or not rest:
            known = f"stages: {', '.join(names)}{nearest(stage, names)}"
            raise ConfigError(f"{text!r} does not name a stage; write STAGE.path=value, {known}")
        found[stage].append(rest)
    return found
