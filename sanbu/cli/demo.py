"""The verb that shows everything: six ways of drawing digits, the assistant pipeline, and both in the studio."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sanbu.cli.app import app

QUESTIONS = (
    "What is 12 + 7?",
    "How often is b in a c b a b?",
    "What is the largest of 31 7 90 55?",
    "Is lambda a keyword of Python?",
)
SHOWN = ("base", "sft", "ppo", "dpo")
SECONDS = 20  # of CPU time for each strategy


@app.command()
def demo(
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="run folder")] = Path("runs/demo"),
) -> None:
    """Compare strategies, train an assistant, open the studio.

    Draws digits in six ways, then trains an assistant on Python's own
    documentation. A second call continues where the first one stopped.
    """
    from sanbu.display.plots import draw_curves
    from sanbu.evaluation.measure import measure
    from sanbu.recipes import pipelines
    from sanbu.recipes.stages import train_stages

    digits = compare_digits(run.with_name(run.name + "-digits"))
    stages, _ = pipelines.make("assistant", [])
    runs = train_stages(stages, run, ())
    for stage in runs.values():
        draw_curves(stage)
    typer.echo(f"right answers and reward over the KL: {runs['ppo'].folder / 'policy.png'}")
    typer.echo(measure([runs[name] for name in SHOWN[1:]], questions=256)[1] + "\n")
    shown = [*(run / name for name in SHOWN), *sorted((digits / "runs").glob("*-0"))]
    if sys.stdin.isatty():
        open_studio(shown, run.parent)
    else:
        ask(shown)
        typer.echo(f"to continue in the browser: sanbu serve {' '.join(map(str, shown))} --runs {run.parent} --open")


def compare_digits(folder: Path) -> Path:
    """Six strategies on the same digits, unless they are there already."""
    import rich

    from sanbu.evaluation.compare import compare_contest
    from sanbu.evaluation.report import table, write
    from sanbu.recipes import contests

    if not (folder / "compare.json").exists():
        rows = compare_contest(contests.find("digits"), folder, SECONDS, 1)
        write(rows, folder, f"digits: {SECONDS} CPU seconds each")
        rich.print(table(rows))
    typer.echo(f"six ways to draw digits, side by side: {folder / 'compare.html'}\n")
    return folder


def ask(shown: Sequence[Path]) -> None:
    """Four questions to every stage of the assistant, side by side."""
    from sanbu.cli.talk import Speaker, answer_all

    speakers = [Speaker.open(place) for place in shown[: len(SHOWN)]]
    for question in QUESTIONS:
        typer.echo(f"> {question}")
        answer_all(speakers, question, 0)


def open_studio(runs: Sequence[Path], root: Path) -> None:
    """Serve runs and their page until told to stop."""
    from sanbu.cli.serve import serve

    serve(list(runs), port=0, root=root, open_page=True)
