"""The verbs that measure: evaluate, compare."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sanbu.cli.app import Json, app, report, shared
from sanbu.config import ConfigError
from sanbu.evaluation.figures import Entry, Report
from sanbu.parallel.launch import in_job, speaks


@app.command()
@shared
def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="run folders; more than one only for assistants")
    ],
    data: Annotated[str | None, typer.Option("--data", metavar="PATH", help="(text) evaluate on this text")] = None,
    inception: Annotated[
        int, typer.Option("--inception", min=0, help="(pictures) also compute Inception FID from N samples")
    ] = 0,
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="NAME,...", help="few-shot tasks: names or task files")
    ] = None,
    shots: Annotated[str, typer.Option("--shots", metavar="K,...", help="worked examples in each prompt")] = "0",
    folder: Annotated[Path, typer.Option("--folder", help="directory with the task files")] = Path("data"),
    questions: Annotated[int, typer.Option("--questions", min=1, help="questions per task or assistant")] = 512,
    as_json: Json = False,
) -> None:
    """Measure runs on held-out data.

    \b
    sanbu evaluate runs/first                    bits per byte, loss, perplexity
    sanbu evaluate runs/chat/sft runs/chat/ppo   right answers, reward, KL, wins
    sanbu evaluate runs/first --tasks arc-easy,lambada --shots 0,1,5
    sanbu evaluate runs/icl                      accuracy by number of examples
    sanbu evaluate runs/flow                     one row of `sanbu compare`
    """
    from sanbu.evaluation.measure import measure
    from sanbu.run import Run

    if not re.fullmatch(r"\s*[0-9]{1,4}\s*(,\s*[0-9]{1,4}\s*)*", shots):
        raise ConfigError(f"--shots: given {shots!r}, but numbers separated by commas are needed, as in 0,1,5")
    found, text = measure(
        [Run.open(place) for place in runs],
        data=data,
        inception=inception,
        questions=questions,
        tasks=tasks.split(",") if tasks is not None else (),
        shots=[int(part) for part in shots.split(",")],
        folder=folder,
    )
    report(found, as_json, text)


@app.command()
@shared
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="CONTEST|RUN...", help="a contest and its settings, or runs on the same data")
    ],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="folder for runs and report")] = Path(
        "runs/compare"
    ),
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1, help="CPU seconds of training per row; digits: 60")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="runs per row; digits: 3")] = None,
    as_json: Json = False,
) -> None:
    """Compare on the same data: quality, speed, diversity.

    Writes compare.html, compare.png and compare.json into --run.

    \b
    sanbu compare digits                            strategies on the same pictures
    sanbu compare digits --seconds 20 --seeds 1
    sanbu compare functions path=my.txt             n-grams, RNN, LSTM, transformer
    sanbu compare searches                          Adam, Muon, genetic, CMA-ES
    sanbu compare few-labels labels=40              FixMatch and others
    sanbu compare tables path=adult.csv             ways to draw rows of a table
    sanbu compare runs/mine runs/other --run runs/report
    """
    found = compared(names, Entry(run, seconds, seeds))
    if not speaks():
        return
    content = found.write(run)
    if as_json:
        report(content, True, "")
        return
    from rich.console import Console

    from sanbu.display.tables import folded, output_width

    Console(width=output_width()).print(found.table())
    typer.echo("\n" + folded("\n".join(content["advice"])) + f"\n{run / 'compare.html'}")


def compared(names: list[str], entry: Entry) -> Report:
    """The report of a contest, or of run folders. Raises ConfigError for a mixture of both."""
    from sanbu.evaluation.compare import compare_runs, names_of
    from sanbu.evaluation.report import PictureReport
    from sanbu.recipes import contests
    from sanbu.run import Run

    if in_job() and not all((Path(name) / "recipe.json").exists() for name in names):
        raise ConfigError("compare: under torchrun only run folders are compared; a contest trains its runs by itself")
    if names[0] in contests.CONTESTS:
        return contests.compete(names[0], replace(entry, settings=tuple(names[1:])))
    missing = next((name for name in names if not (Path(name) / "recipe.json").exists()), None)
    if missing is not None and len(names) > 1:
        raise ConfigError(f"compare: given {' '.join(names)}, allowed: one contest or run folders; {missing} is no run")
    if missing is not None:
        return contests.compete(missing, entry)
    runs = [Run.open(name) for name in names]
    return PictureReport(compare_runs(runs), ", ".join(names_of(runs)))
