"""What `make demo` shows: six ways to draw digits side by side, the life of an assistant, and both in the studio."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import rich
import typer

from sanbu.cli.talk import Speaker, say
from sanbu.display.console import Console
from sanbu.display.plots import loss_curve, policy_curve
from sanbu.evaluation.compare import compare_contest
from sanbu.evaluation.measure import measure
from sanbu.evaluation.report import table, write
from sanbu.recipes import contests, pipelines
from sanbu.recipes.stages import live

ASKED = (
    "What is 12 + 7?",
    "How often is b in a c b a b?",
    "What is the largest of 31 7 90 55?",
    "Is lambda a keyword of Python?",
)
SHOWN = ("base", "sft", "ppo", "dpo")
SECONDS = 20


def demonstrate(folder: Path) -> None:
    """Train both, going on where one was begun; then open the studio, or ask four questions where nobody sits before it."""
    digits = folder.with_name(folder.name + "-digits")
    if not (digits / "compare.json").exists():
        rows = compare_contest(contests.find("digits"), digits, SECONDS, 1)
        write(rows, digits, f"digits: {SECONDS} CPU seconds each")
        rich.print(table(rows))
    typer.echo(f"six ways to draw digits, side by side: {digits / 'compare.html'}\n")
    stages, _ = pipelines.make("assistant", [])
    runs = live(stages, folder, (), Console)
    for run in runs.values():
        loss_curve(run)
    typer.echo(f"right answers and reward over the KL: {policy_curve(runs['ppo'])}")
    typer.echo(measure([folder / name for name in SHOWN[1:]], None, 0, None, "0", folder, 256)[1] + "\n")
    shown = [*(folder / name for name in SHOWN), *sorted((digits / "runs").glob("*-0"))]
    if sys.stdin.isatty():
        open_studio(shown, folder.parent)
        return
    speakers = [Speaker.open(place) for place in shown[: len(SHOWN)]]
    for question in ASKED:
        typer.echo(f"> {question}")
        say(speakers, question, 0)
    typer.echo(f"to go on in the browser: sanbu serve {' '.join(map(str, shown))} --runs {folder.parent} --open")


def open_studio(runs: Sequence[Path], root: Path) -> None:
    """Serve runs and their page until told to stop."""
    from sanbu.cli.serve import serve

    serve(list(runs), port=0, root=root, open_page=True)
