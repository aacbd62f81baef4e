"""The verbs that come before a run and make it: list, show, preview, train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanbu import recipes
from sanbu.cli.app import Json, Overrides, app, choose, report
from sanbu.config import ConfigError

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
def show(name: RecipeOrRun, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show every field of a recipe, what its model costs and the memory that training needs.

    Each field can be given back as an override; # begins its description.

    \b
    sanbu show gpt2
    sanbu show gpt2 size=1.5b --json
    sanbu show runs/first
    """
    from dataclasses import asdict

    from sanbu.config import dump
    from sanbu.display.tables import folded
    from sanbu.evaluation.cost import cost
    from sanbu.memory.limits import room
    from sanbu.memory.parts import size
    from sanbu.memory.training import estimate
    from sanbu.recipe import walk
    from sanbu.run import Run

    if name in recipes.PIPELINES:
        show_pipeline(name, overrides or (), as_json)
        return
    recipe = choose(name, overrides).resolve()
    costs = asdict(cost(recipe))
    fields = [shown(*field) for field in walk(recipe)]
    beside = min(OVERRIDE, max(len(override) for override, _ in fields))
    lines = [commented(override, about, beside) for override, about in fields]
    lines.append("")
    for key, value in costs.items():
        lines.append(f"{key.replace('_', ' ')}: {value:,}")
    need = estimate(recipe, {role: Run.open(path).recipe for role, path in recipe.parents.items()})
    lines.append(folded(f"memory to train: {need.describe()}; this machine has {size(room().bytes)} left", "  "))
    memory = asdict(need) | {"total": need.total}
    report({**costs, "memory_bytes": memory, "recipe": dump(recipe)}, as_json, "\n".join(lines))


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
    stages = {stage.name: about[stage.name] for stage in made}
    width = max(map(len, stages)) + 2
    lines = [about[name], *(f"{stage:{width}}{text}" for stage, text in stages.items())]
    lines.append(f"All fields of one: sanbu show {next(iter(stages))}")
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
    sanbu train assistant --run runs/chat       base, sft, reward, ppo, dpo
    """
    if name in recipes.PIPELINES:
        report(train_pipeline(name, overrides or (), run), as_json, str(run or Path("runs") / name))
        return
    if resume and run is None:
        raise ConfigError("--resume needs --run DIR")
    started = resume and all(text.startswith("layout.") for text in overrides or ())
    recipe = recipe_of(run, name, overrides or ()) if run is not None and started else choose(name, overrides)
    from sanbu.display.console import Console
    from sanbu.display.plots import draw_curves
    from sanbu.display.tensorboard import TensorBoard
    from sanbu.loop import train as train_recipe
    from sanbu.memory.parts import TooLarge

    watchers = [Console(), TensorBoard()] if tensorboard else [Console()]
    try:
        done = train_recipe(recipe, run, resume=resume, watchers=watchers)
    except TooLarge as error:
        raise with_nearest_size(error, name, overrides or ()) from None
    rows = done.metrics()
    curve = draw_curves(done) if rows else None
    final = {key: value for row in rows for key, value in row.items() if not key.startswith("time/")}
    report({"run": str(done.folder), "curve": str(curve) if curve else None, **final}, as_json, str(done.folder))


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
    from sanbu.recipes import pipelines
    from sanbu.recipes.stages import train_stages

    folder = folder or Path("runs") / name
    stages, rest = pipelines.make(name, list(overrides))
    runs = train_stages(stages, folder, rest)
    for run in runs.values():
        draw_curves(run)
    return {"run": str(folder), "stages": {stage: str(run.folder) for stage, run in runs.items()}}
