"""What `make demo` shows: a hundred digits drawn by a flow, then the life of an assistant, which ends in a conversation."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from sanbu import recipes
from sanbu.config import override
from sanbu.console import Console
from sanbu.evaluation.kinds import measure
from sanbu.gallery import draw
from sanbu.life import live
from sanbu.loop import train
from sanbu.plots import loss_curve, policy_curve
from sanbu.recipe import Recipe
from sanbu.recipes import lives
from sanbu.run import Run
from sanbu.talk import Speaker, converse, say

ASKED = (
    "What is 12 + 7?",
    "What is k d p q z backwards?",
    "What is the largest of 31 7 90 55?",
    "What does heapq.merge do?",
)
SHOWN = ("base", "sft", "ppo", "dpo")


def demonstrate(folder: Path) -> None:
    """Train both, going on where one was begun; then talk to base, sft, ppo and dpo side by side, or ask four questions where nobody types."""
    digits = trained(override(recipes.flow(), ["schedule.steps=1000"]), folder.with_name(folder.name + "-digits"))
    grid = draw(digits, digits.folder / "generated", None, 100, 0, ())["grid"]
    typer.echo(f"a hundred digits, ten of each: {grid}\n")
    stages, _ = lives.make("assistant", [])
    runs = live(stages, folder, (), Console)
    for run in runs.values():
        loss_curve(run)
    typer.echo(f"right answers and reward over the KL: {policy_curve(runs['ppo'])}")
    typer.echo(measure([folder / name for name in SHOWN[1:]], None, 0, None, "0", folder, 256)[1] + "\n")
    speakers = [Speaker.open(folder / name) for name in SHOWN]
    if sys.stdin.isatty():
        converse(speakers, 0)
        return
    for question in ASKED:
        typer.echo(f"> {question}")
        say(speakers, question, 0)


def trained(recipe: Recipe, folder: Path) -> Run:
    """A run of the recipe, gone on with where there is one."""
    resume = (folder / "recipe.json").exists()
    return train(Run.open(folder).recipe if resume else recipe, folder, resume=resume, watcher=Console())
