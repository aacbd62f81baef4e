"""Searches side by side: the same model and rows, the same CPU time; loss and accuracy by seconds and evaluations.

An evaluation is the loss of one function on the rows of a step. A gradient counts as one, and costs about three.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from sanbu.config import kind_of
from sanbu.evaluation.contest import Contestant, train_contestants
from sanbu.evaluation.figures import Figures, Panel, Shown
from sanbu.run import Run

LOOKS = 40  # points of a curve
COLUMNS = (
    Shown("name", "search", "s"),
    Shown("objective", "objective", "s", 1),
    Shown("accuracy", "accuracy"),
    Shown("loss", "loss", rank=2),
    Shown("seconds", "CPU s", ".1f", 3),
    Shown("steps", "steps", ",.0f", 4),
    Shown("evaluations", "evaluations", ",.0f", 5),
    Shown("parameters", "parameters", ",d", 6),
)
NOTES = (
    "Accuracy and loss are those of held-out rows at the end. A step of a search with a population is a generation. An"
    " evaluation is the loss of one function on the rows of a step; a gradient counts as one and costs about three. The"
    " accuracy as an objective has no gradient; its loss is the fraction that is wrong."
)


def compete(contestants: Sequence[Contestant], folder: Path, seconds: float, seeds: int, title: str) -> Figures:
    """Train every search and report."""
    runs: dict[str, list[Run]] = {}
    for contestant, _, run in train_contestants(contestants, folder, seconds, seeds):
        runs.setdefault(contestant.name, []).append(run)
    rows = [row_of(name, found) for name, found in runs.items()]
    plain = {row["name"]: curve(runs[row["name"]][0]) for row in rows if row["objective"] != "accuracy"}
    without = {row["name"]: curve(runs[row["name"]][0]) for row in rows if row["objective"] == "accuracy"}
    panels = [
        Panel("CPU seconds", "accuracy on held-out rows", select(plain, "seconds", "accuracy"), log_x=True),
        Panel("evaluations", "loss on held-out rows", select(plain, "evaluations", "loss"), log_x=True, log_y=True),
    ]
    if without:
        lines = select(without, "seconds", "accuracy")
        panels.append(Panel("CPU seconds", "accuracy, searched for without a gradient", lines, log_x=True))
    return Figures(title, COLUMNS, rows, advice(rows), panels, notes=NOTES)


def row_of(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """The figures of one search, means over its runs."""
    last = [curve(run)[-1] for run in runs]
    return {
        "name": name,
        "objective": str(kind_of(runs[0].recipe.objective)),
        **{key: mean(point[key] for point in last) for key in last[0]},
        "parameters": parameters_of(runs[0]),
    }


def parameters_of(run: Run) -> int:
    """The number of parameters of the model."""
    return sum(parameter.numel() for parameter in run.model.parameters())


def curve(run: Run) -> list[dict[str, float]]:
    """Loss and accuracy on held-out rows, with the CPU seconds, steps and evaluations until then."""
    each, spent, found = run.recipe.optimizer.evaluations(parameters_of(run)), 0.0, []
    for row in run.metrics():
        spent += row["time/cpu_seconds"]
        if "held_out/loss" in row:
            measured = {key: row[f"held_out/{key}"] for key in ("loss", "accuracy")}
            found.append({**measured, "seconds": spent, "steps": row["step"], "evaluations": row["step"] * each})
    return found


def select(curves: dict[str, list[dict[str, float]]], x: str, y: str) -> dict[str, list[tuple[float, float]]]:
    """Two of the figures of each curve, as points."""
    return {name: [(point[x], point[y]) for point in points] for name, points in curves.items()}


def advice(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences computed from the figures."""
    found = []
    by_gradient = [row for row in rows if row["evaluations"] == row["steps"]]
    by_value = [row for row in rows if row["evaluations"] != row["steps"] and row["objective"] != "accuracy"]
    without = [row for row in rows if row["objective"] == "accuracy"]
    groups = {
        "Along the gradient": by_gradient,
        "By values alone": by_value,
        "On the accuracy itself, which has no gradient": without,
    }
    for what, group in groups.items():
        if group:
            best = max(group, key=lambda row: row["accuracy"])
            found.append(f"{what}: {best['name']} has the highest accuracy ({best['accuracy']:.3f}).")
    return found
