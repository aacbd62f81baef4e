"""The verbs that come before a run and make it: list, show, preview, train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanbu import recipes
from sanbu.cli.app import Json, Overrides, app, choose, report
from sanbu.config import ConfigError

AUTO = "layout=auto"
OVERRIDE, COMMENT = 44, 36  # characters of `sanbu show`: of most changes, and those that a comment beside one needs

if TYPE_CHECKING:
    from sanbu.memory.parts import TooLarge

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="name of a recipe; see: sanbu list")]
RecipeOrRun = Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="name of a recipe, or run folder")]


@app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes, with one line about each."""
    from sanbu.display.tables import folded

    found = recipes.describe()
    width = max(map(len, found)) + 2
    lines = [folded(f"{name:{width}}{text}", " " * width) for name, text in found.items()]
    report({"recipes": found}, as_json, "\n".join(lines))


@app.command()
def show(
    name: RecipeOrRun,
    overrides: Overrides = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="show the layouts that fit on so many")] = 1,
    memory: Annotated[float, typer.Option("--memory", min=0, help="GB of a device; default this machine's")] = 0.0,
    as_json: Json = False,
) -> None:
    """Show every field of a recipe, what its model costs and the memory that training needs.

    Each field can be given back as an override; # begins its description. With --devices,
    show the layouts with which it fits, and the memory of the fullest rank by part.

    \b
    sanbu show gpt2
    sanbu show gpt2 size=1.5b --json
    sanbu show gpt3 size=175b --devices 1024 --memory 80
    sanbu show runs/first
    """
    from dataclasses import asdict

    from sanbu.config import dump
    from sanbu.display.tables import folded
    from sanbu.memory.cost import cost
    from sanbu.memory.limits import room
    from sanbu.memory.parts import size
    from sanbu.memory.training import estimate
    from sanbu.recipe import walk
    from sanbu.run import Run

    if name in recipes.PIPELINES:
        show_pipeline(name, overrides or (), as_json)
        return
    recipe = choose(name, [text for text in overrides or () if text != AUTO]).resolve()
    if devices > 1 or recipe.layout.processes() > 1:
        show_layouts(recipe, devices, memory, as_json)
        return
    costs = asdict(cost(recipe))
    fields = [shown(*field) for field in walk(recipe)]
    beside = min(OVERRIDE, max(len(override) for override, _ in fields))
    lines = [commented(override, about, beside) for override, about in fields]
    lines.append("")
    for key, value in costs.items():
        lines.append(f"{key.replace('_', ' ')}: {value:,}")
    need = estimate(recipe, {role: Run.open(path).recipe for role, path in recipe.parents.items()})
    lines.append(folded(f"memory to train: {need.describe()}; this machine has {size(room().bytes)} left", "  "))
    parts = asdict(need) | {"total": need.total}
    report({**costs, "memory_bytes": parts, "recipe": dump(recipe)}, as_json, "\n".join(lines))


def show_layouts(recipe: Any, devices: int, memory: float, as_json: bool) -> None:
    """The layouts with which a recipe fits on some devices, or the memory of the one it names."""
    from dataclasses import asdict

    from sanbu.display.tables import Column, FittedTable
    from sanbu.memory.limits import room
    from sanbu.memory.parts import size
    from sanbu.memory.per_rank import Counted, that_fit
    from sanbu.run import Run

    left = round(memory * 1e9) or room().bytes
    counted = Counted.of(recipe, {role: Run.open(path).recipe for role, path in recipe.parents.items()})
    if recipe.layout.processes() > 1:
        degrees = recipe.layout.degrees(max(devices, recipe.layout.processes()))
        found = [(recipe.layout, degrees, counted.rank(recipe.layout, degrees))]
    else:
        found = that_fit(counted, devices, left)
    rows, told = [], []
    for layout, degrees, parts in found:
        given = " ".join(f"{key}={value}" for key, value in changed(layout).items())
        sizes = [size(part or 0) for part in (parts.weights, parts.gradients, parts.optimizer, parts.activations)]
        rows.append([given, *sizes, size(parts.total)])
        each_part = asdict(parts) | {"total": parts.total}
        told.append({"layout": changed(layout), "ranks": degrees.size, "memory_bytes": each_part})
    names = {"layout": 0, "weights": 2, "gradients": 3, "optimizer": 4, "activations": 5, "total": 1}
    columns = [Column(each, rank, each != "layout") for each, rank in names.items()]
    text = str(FittedTable(columns, rows, ["" for _ in rows], rest="--json"))
    report({"layouts": told, "room_bytes": left}, as_json, text)


def changed(layout: Any) -> dict[str, Any]:
    """The fields of a layout that divide something, as overrides."""
    return {f"layout.{name}": value for name, value in layout.dividing().items()}


def shown(path: str, value: Any, kind: str, text: str) -> tuple[str, str]:
    """A field as an override, and what is said about it; of the schema of a table a few words per column."""
    from sanbu.config import plain

    if isinstance(value, tuple) and value and hasattr(value[0], "describe"):
        return f"{path}  ({len(value)} found)", "; ".join(f"{each.name}: {each.describe()}" for each in value)
    return f"{path}={plain(value)}", f"{kind}; {text}" if text else kind


def show_pipeline(name: str, overrides: Sequence[str], as_json: bool) -> None:
    """The recipes that a pipeline trains, in their order, with one line about each."""
    from sanbu.display.tables import folded
    from sanbu.recipes import pipelines

    about = recipes.describe()
    made, _ = pipelines.make(name, list(overrides))
    stages = {stage.name: about[stage.recipe_name or stage.name] for stage in made}
    width = max(map(len, stages)) + 2
    lines = [about[name], *(f"{stage:{width}}{text}" for stage, text in stages.items())]
    lines.append(f"All fields of one: sanbu show {made[0].recipe_name or made[0].name}")
    text = "\n".join(folded(line, " " * width) for line in lines)
    report({"pipeline": name, "stages": stages}, as_json, text)


def commented(override: str, about: str, beside: int) -> str:
    """An override, and a comment in lines that fit: from column `beside` on, or below where there is no room."""
    from sanbu.display.tables import folded, output_width

    beside = max(len(override), beside)
    if output_width() - beside < COMMENT:
        return f"{override}\n{folded('    # ' + about, '    # ')}"
    return folded(f"{override:{beside}}  # {about}", " " * beside + "  # ")


@app.command()
def preview(
    name: RecipeOrRun,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="training rows to show")] = 2,
    as_json: Json = False,
) -> None:
    """Show training rows token by token: taught, only read, or padding. Of pictures, show what
    was read, left out or changed, with counts, the classes, and the first rows. Of a table,
    show the type of each column.

    \b
    sanbu preview runs/chat/sft
    sanbu preview sft base=runs/chat/base data.path=mine.jsonl --rows 4
    sanbu preview flow data.path=photos/ data.shape=[3,32,32]
    """
    from sanbu.cli.preview import picture_lines, tokens_of
    from sanbu.cli.preview import show as show_rows
    from sanbu.display.tables import folded

    data: Any = choose(name, overrides).resolve().data.build()
    if hasattr(data, "preview"):
        about, lines = data.preview(rows)
        report(about, as_json, "\n".join(lines))
        return
    if "levels" in data.batch(0, 1):
        about, lines = picture_lines(data, rows)
        report(about, as_json, folded("\n".join(lines), "    "))
        return
    found = tokens_of(data, rows)
    if as_json:
        shown = [[{"piece": token.piece, "state": token.state} for token in row] for row in found]
        report({"data": data.describe(), "rows": shown}, True, "")
    else:
        print(folded(data.describe()))
        show_rows(found)


@app.command()
def train(
    name: Recipe,
    overrides: Overrides = None,
    run: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="run folder; default runs/RECIPE")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue from the latest checkpoint in --run")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="also write TensorBoard event files")] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe into a run folder; --resume continues one bit for bit.

    Ctrl-C saves a checkpoint and stops. What cannot fit into memory is refused
    before it is built, with the nearest size that fits.

    \b
    sanbu train gpt2
    sanbu train gpt2 size=124m data.path=corpus/ --run runs/owt
    sanbu train gpt2 data.path=my.txt model=llama schedule.steps=500
    sanbu train gpt2 --run runs/first --resume
    sanbu train gpt2 layout.data=2              on two devices; --resume takes another layout
    sanbu train gpt2 layout=auto                on all devices, by the simplest layout that fits
    sanbu train assistant --run runs/chat       base, sft, reward, ppo, dpo
    """
    if name in recipes.PIPELINES:
        report(train_pipeline(name, overrides or (), run), as_json, str(run or Path("runs") / name))
        return
    if resume and run is None:
        raise ConfigError("--resume needs --run DIR")
    given = [text for text in overrides or () if text != AUTO]
    if resume and run is not None and all(text.startswith("layout.") for text in given):
        recipe = recipe_of(run, name, given)
    else:
        recipe = choose(name, given)
    recipe = with_layout(recipe) if AUTO in (overrides or ()) else recipe
    from sanbu.display.console import Console
    from sanbu.display.plots import draw_curves
    from sanbu.display.tensorboard import TensorBoard
    from sanbu.loop import train as train_recipe
    from sanbu.memory.parts import TooLarge
    from sanbu.parallel.launch import speaks

    watchers = [Console(), TensorBoard()] if tensorboard else [Console()]
    try:
        done = train_recipe(recipe, run, resume=resume, watchers=watchers)
    except TooLarge as error:
        raise with_nearest_size(error, name, overrides or ()) from None
    if not speaks():
        return
    rows = done.metrics()
    curve = draw_curves(done) if rows else None
    final = {key: value for row in rows for key, value in row.items() if not key.startswith("time/")}
    report({"run": str(done.folder), "curve": str(curve) if curve else None, **final}, as_json, str(done.folder))


def with_layout(recipe: Any) -> Any:
    """The recipe with the simplest layout with which it fits on the devices there are; says which."""
    import torch

    from sanbu.memory.limits import room_per_rank
    from sanbu.memory.per_rank import Counted, that_fit
    from sanbu.run import Run

    devices = int(os.environ.get("WORLD_SIZE", "0")) or torch.cuda.device_count() or 1
    resolved = recipe.resolve()
    counted = Counted.of(resolved, {role: Run.open(path).recipe for role, path in recipe.parents.items()})
    here = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    left = room_per_rank("cuda" if torch.cuda.is_available() else "cpu", here)
    layout, degrees, parts = that_fit(counted, devices, left)[0]
    typer.echo(f"layout=auto: {degrees.describe()}; the fullest rank needs about {parts.describe()}", err=True)
    return recipe.change(layout=layout)


def recipe_of(folder: Path, name: str, layout: Sequence[str]) -> Any:
    """The recipe of a run to resume, with another layout where one is given. Raises ConfigError for another recipe."""
    from sanbu.run import Run

    recipe, asked = Run.open(folder).recipe, choose(name, ()).name
    if recipe.name != asked:
        raise ConfigError(f"{folder} is a run of {recipe.name}, not of {asked}")
    return recipe.change(*layout)


def with_nearest_size(error: TooLarge, name: str, overrides: Sequence[str]) -> TooLarge:
    """The refusal with the size in its name, and the largest size that fits where rows are not what is too many."""
    from sanbu.memory.parts import TooLarge
    from sanbu.recipes.sizes import largest_fitting

    given = [text for text in overrides if text.startswith("size=")]
    smaller = "" if error.advice.endswith(")") else largest_fitting(name, overrides, error.room)
    return TooLarge(" ".join((name, *given)), error.need, error.room, smaller or error.advice)


def train_pipeline(name: str, overrides: Sequence[str], folder: Path | None) -> dict[str, Any]:
    """Train the stages of a pipeline that are not done yet; where each lives."""
    from sanbu.display.plots import draw_curves
    from sanbu.progress import error_stream
    from sanbu.recipes import pipelines
    from sanbu.recipes.stages import train_stages

    folder = folder or Path("runs") / name
    given = pipelines.continued(name, overrides, folder)
    stages, rest = pipelines.make(name, given)
    runs = train_stages(stages, folder, rest, given=given)
    for run in runs.values():
        draw_curves(run)
    if not all(run.finished() for run in runs.values()):
        error_stream().print(f"continue the pipeline with: sanbu train {name} --run {folder} --resume")
    return {"run": str(folder), "stages": {stage: str(run.folder) for stage, run in runs.items()}}
