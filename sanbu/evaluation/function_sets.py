"""Models of text of different kinds on the same text: what each costs and what it brings.

Every network is trained twice: on the same number of tokens, and for the same CPU time. Measured are the loss on
held-out text, tokens per second of training, and tokens per second of one row that is drawn to a given length.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from sanbu.config import SanbuError, dump, load
from sanbu.data.text_rows import TextRows
from sanbu.evaluation.contest import do_jobs, train_within
from sanbu.evaluation.figures import Figures, Panel, Shown
from sanbu.evaluation.jobs import Job, cores
from sanbu.evaluation.streams import stream_loss
from sanbu.evaluation.text import bits_per_byte
from sanbu.files import read_json, write_json
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import draw

LENGTHS = (100, 400, 1000)  # tokens of one row, whose speed is measured
TYPICAL, MEASURE_SECONDS = 60.0, 20.0  # that training on equal tokens and measuring take about

COLUMNS = (
    Shown("name", "model", "s"),
    Shown("loss_equal_tokens", "loss, equal tokens"),
    Shown("loss_equal_time", "loss, equal time"),
    Shown("stream_loss", "as a stream", rank=5),
    Shown("tokens_per_second", "trained tokens/s", ",.0f", 1),
    Shown("generate_per_second", "drawn tokens/s", ",.0f", 2),
    Shown("growth", "cost of a long context", ".2f", 4),
    Shown("memory_mb", "MB", ",.0f", 6),
    Shown("parameters", "parameters", ",d", 3),
)
NOTES = (
    "Loss: nats per token of held-out text, in windows of the context, after training on the same number of tokens and"
    " for the same CPU time. As a stream: with the state carried along, or with windows that overlap. Drawn tokens/s:"
    " one row of 1,000 tokens on one thread. Cost of a long context: time of a token in a row of 1,000 over that in a"
    " row of 100. n-grams have counts and no parameters."
)


@dataclass(frozen=True)
class Competitor:
    """A set of functions: its recipe at equal tokens, and at equal time. counted: at once, in less than that time."""

    name: str
    by_tokens: Recipe
    by_time: Recipe
    counted: bool = False


def jobs_of(competitors: Sequence[Competitor], folder: Path, seconds: float, seeds: int) -> list[Job]:
    """Training under both budgets, and a measurement after each. Raises SanbuError if one was done otherwise before."""
    jobs: list[Job] = []
    for seed in range(seeds):
        for each in competitors:
            limit = 0.0 if each.counted else seconds
            jobs.append(job_of(f"{each.name}-tokens-{seed}", each.by_tokens, 0.0, seed, folder))
            jobs.append(job_of(f"{each.name}-time-{seed}", each.by_time, limit, seed, folder))
    return jobs


def job_of(name: str, recipe: Recipe, seconds: float, seed: int, folder: Path) -> Job:
    """One training with its measurement. seconds: of CPU time; 0 takes the steps of the recipe."""
    place = folder / "runs" / name
    made = place / "figures.json"
    asked = json.dumps([dump(recipe.change(f"schedule.seed={seed}", "machine.threads=1")), seconds])
    if made.exists() and read_json(made)["asked"] != asked:
        raise SanbuError(f"{place} was trained with other settings; give another --run")
    return Job(name, train_and_measure, (asked, str(place)), made, (seconds or TYPICAL) + MEASURE_SECONDS, place)


def train_and_measure(asked: str, place: str) -> None:
    """(In a process of its own) Train a recipe for so many seconds, or if that is 0 for its steps, and measure."""
    from sanbu.loop import train

    values, seconds = json.loads(asked)
    if seconds:
        train_within(json.dumps(values), place, seconds, ())
        run = Run.open(place)
    else:
        resume = (Path(place) / "recipe.json").exists()
        run = train(load(Recipe, values), place, resume=resume, watchers=[])
    if run.finished():
        write_json(run.folder / "figures.json", {**measure(run), "asked": asked})


def measure(run: Run) -> dict[str, Any]:
    """The figures of one run."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    data = run.recipe.data.build()
    assert isinstance(data, TextRows)
    spent = sum(row["time/cpu_seconds"] for row in run.metrics())
    rows, steps = run.recipe.schedule.batch, run.recipe.schedule.steps
    assert isinstance(rows, int)
    times = {length: seconds_per_token(run, length) for length in LENGTHS}
    return {
        "loss": bits_per_byte(run, data)["loss"],
        "stream_loss": stream_loss(run.model, data),
        "tokens_per_second": rows * steps * data.context / spent,
        "generate_per_second": 1 / times[LENGTHS[-1]],
        "growth": times[LENGTHS[-1]] / times[LENGTHS[0]],
        "seconds_per_token": {str(length): value for length, value in times.items()},
        "memory_mb": peak,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
    }


def seconds_per_token(run: Run, length: int) -> float:
    """Seconds per token of one row of `length` tokens. The model may be longer than the run's, with the same weights.

    The weights do not matter for the time, so a model of the length is built where the run's own is shorter.
    """
    model: Any = run.model
    if model.context <= length:
        config: Any = run.recipe.model
        model = config.model_copy(update={"context": length + 1}).build(run.recipe.data.space()).eval()
    endless = replace(run.recipe.data.space(), end=None, other_ends=())
    strategy = Autoregressive(max_tokens=length - 1).build(endless)
    one = {"tokens": torch.zeros(1, 1, dtype=torch.long), "length": torch.ones(1, dtype=torch.long)}
    best = float("inf")
    for _ in range(2):
        since = time.process_time()
        found = draw(strategy, {"model": model}, one, torch.zeros(1, dtype=torch.long))
        best = min(best, (time.process_time() - since) / int(found.evaluations[0]))
    return best


def compete(competitors: Sequence[Competitor], folder: Path, seconds: float, seeds: int, title: str) -> Figures:
    """Train and measure every competitor; the report."""
    jobs = jobs_of(competitors, folder, seconds, seeds)
    do_jobs("comparing", jobs, folder / "jobs.log", cores())
    rows = [row_of(each.name, folder, seeds) for each in competitors]
    drawn = {row["name"]: speeds(row["seconds_per_token"]) for row in rows}
    curves = {each.name: curve(folder, each.name) for each in competitors if not each.counted}
    panels = (
        Panel("CPU seconds of training", "loss on the rows that are trained on", curves, log_x=True),
        Panel("tokens in the row", "drawn tokens per second", drawn, log_x=True, log_y=True),
    )
    return Figures(title, COLUMNS, rows, advice(rows), panels, notes=NOTES)


def speeds(seconds: dict[str, float]) -> list[tuple[float, float]]:
    """Lengths of a row, and tokens per second."""
    return [(int(length), 1 / value) for length, value in seconds.items()]


def row_of(name: str, folder: Path, seeds: int) -> dict[str, Any]:
    """The figures of a competitor, means over seeds; its speed and memory are those of equal time."""
    found = {
        budget: [read_json(folder / "runs" / f"{name}-{budget}-{seed}" / "figures.json") for seed in range(seeds)]
        for budget in ("tokens", "time")
    }
    timed = found["time"]
    row = {"name": name, **timed[0]}
    for key in ("tokens_per_second", "generate_per_second", "growth", "memory_mb"):
        row[key] = mean(each[key] for each in timed)
    del row["loss"], row["asked"]
    row["loss_equal_tokens"] = mean(each["loss"] for each in found["tokens"])
    row["loss_equal_time"] = mean(each["loss"] for each in timed)
    if timed[0]["stream_loss"] is not None:
        row["stream_loss"] = mean(each["stream_loss"] for each in timed)
    return row


def curve(folder: Path, name: str, points: int = 60) -> list[tuple[float, float]]:
    """CPU seconds and the loss, averaged over pieces of the training at equal time."""
    rows = Run.open(folder / "runs" / f"{name}-time-0").metrics()
    size, spent, found = max(1, len(rows) // points), 0.0, []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        spent += sum(row["time/cpu_seconds"] for row in part)
        found.append((spent, mean(row["loss"] for row in part)))
    return found


def advice(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences computed from the figures."""
    by_tokens = min(rows, key=lambda row: row["loss_equal_tokens"])
    by_time = min(rows, key=lambda row: row["loss_equal_time"])
    fastest = max(rows, key=lambda row: row["generate_per_second"])
    found = [
        f"Equal tokens: {by_tokens['name']} has the lowest loss ({by_tokens['loss_equal_tokens']:.3f}).",
        f"Equal time: {by_time['name']} has the lowest loss ({by_time['loss_equal_time']:.3f}).",
        f"Drawing 1,000 tokens: {fastest['name']} is the fastest ({fastest['generate_per_second']:,.0f} per second).",
    ]
    bar = next((row for row in rows if row["name"] == "ngram"), None)
    if bar is not None:
        below = [row["name"] for row in rows if row["loss_equal_time"] < bar["loss_equal_time"]]
        names = ", ".join(below) or "no network"
        found.append(f"Better than n-grams at equal time: {names}.")
    return found
