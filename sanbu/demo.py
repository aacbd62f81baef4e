"""What `make demo` shows: a hundred digits drawn by a flow, and a small GPT-2 that completes Python documentation."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from sanbu import recipes
from sanbu.config import override
from sanbu.console import Console, stream
from sanbu.gallery import draw
from sanbu.loop import train
from sanbu.plots import loss_curve
from sanbu.recipe import Recipe
from sanbu.run import Run


def demonstrate(folder: Path) -> None:
    """Train both, go on where one was begun, then complete what is typed, or three beginnings where nobody types."""
    digits = trained(override(recipes.flow(), ["schedule.steps=1000"]), folder.with_name(folder.name + "-digits"))
    grid = draw(digits, digits.folder / "generated", None, 100, 0, ())["grid"]
    typer.echo(f"a hundred digits, ten of each: {grid}\n")
    made = trained(recipes.gpt2(), folder)
    typer.echo(f"loss curve: {loss_curve(made)}\n")
    if not sys.stdin.isatty():
        for prompt in ("The for statement is used to", "os.path.join(", "Return a new "):
            stream(made, prompt, 0, ())
        return
    typer.echo("Type the beginning of some Python documentation; an empty line ends.")
    while prompt := typer.prompt("", default="", show_default=False, prompt_suffix="> "):
        stream(made, prompt, 0, ())


def trained(recipe: Recipe, folder: Path) -> Run:
    """A run of the recipe, gone on with where there is one."""
    resume = (folder / "recipe.json").exists()
    return train(Run.open(folder).recipe if resume else recipe, folder, resume=resume, watcher=Console())
