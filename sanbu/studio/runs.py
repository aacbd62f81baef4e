"""Runs: live curves of any run, with its recipe, its parent runs, and the samples drawn during training.

A run of a table has a section of its own (tables.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
from PIL import Image

from sanbu.config import SanbuError
from sanbu.recipe import walk
from sanbu.run import Run
from sanbu.studio.tables import table_view
from sanbu.studio.translations import say

POINTS, SHOWN = 400, 12


def runs_tab(root: Path) -> None:
    """The tab of all runs below a folder; refreshed every two seconds."""
    names = find_runs(root)
    with gr.Row():
        name = gr.Dropdown(names, value=names[0] if names else None, label=say("model"), elem_id="run")
        figure = gr.Dropdown(["loss"], value="loss", label=say("figure"), elem_id="figure")
    curve = gr.LinePlot(x="step", y="value", color="figure", height=320, label=say("curve"), elem_id="curve")
    with gr.Row():
        progress = gr.Textbox(label=say("progress"), interactive=False, elem_id="run-progress")
        parents = gr.Textbox(label=say("parents"), interactive=False, elem_id="parents")
    pictures = gr.Gallery(
        label=say("over"), height=300, columns=6, object_fit="contain", format="png", elem_id="run-pictures"
    )
    texts = gr.Textbox(label=say("over"), lines=6, max_lines=20, interactive=False, elem_id="run-texts")
    table_view(lambda name: open_run(root, name), name)
    with gr.Accordion(say("recipe"), open=False):
        recipe = gr.Textbox(show_label=False, lines=10, max_lines=40, interactive=False, elem_id="run-recipe")

    def refresh_curve(name: str | None, figure: str) -> list[Any]:
        return [points(root, name, figure), progress_text(root, name)]

    def select_run(name: str | None) -> list[Any]:
        return run_values(root, name)

    def refresh(name: str | None) -> Any:
        names = find_runs(root)
        return gr.Dropdown(names, value=name if name in names else next(iter(names), None))

    everything = [figure, curve, progress, parents, recipe, pictures, texts]
    name.change(select_run, name, everything)
    figure.change(refresh_curve, [name, figure], [curve, progress])
    name.focus(refresh, name, name)
    gr.Timer(2).tick(refresh_curve, [name, figure], [curve, progress], show_progress="hidden")
    gr.on(None, lambda: select_run(next(iter(find_runs(root)), None)), None, everything)


def run_values(root: Path, name: str | None) -> list[Any]:
    """The values of every component of the tab for one run."""
    figures = figures_of(root, name)
    figure = "loss" if "loss" in figures else next(iter(figures), "loss")
    drawn, said = samples(root, name)
    return [
        gr.Dropdown(figures, value=figure),
        points(root, name, figure),
        progress_text(root, name),
        parents_text(root, name),
        describe_recipe(root, name),
        gr.Gallery(drawn, visible=bool(drawn)),
        gr.Textbox(said, visible=bool(said)),
    ]


def find_runs(root: Path) -> list[str]:
    """Names of the run folders below a folder, newest first."""
    files = (file for depth in ("*", "*/*", "*/*/*") for file in root.glob(f"{depth}/recipe.json"))
    dated = sorted(((file.stat().st_mtime, file.parent) for file in files), reverse=True)
    return [folder.relative_to(root).as_posix() for _, folder in dated]


def open_run(root: Path, name: str | None) -> Run | None:
    """A run by its name on the page; None for any other name."""
    if not name or name not in find_runs(root):
        return None
    try:
        return Run.open(root / name)
    except SanbuError:
        return None


@lru_cache(8)
def _rows(path: Path, size: int) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if size else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def rows_of(root: Path, name: str | None) -> list[dict[str, Any]]:
    """The rows of metrics of a run; read again when the file has grown."""
    run = open_run(root, name)
    path = run.folder / "metrics.jsonl" if run else None
    return _rows(path, path.stat().st_size) if path is not None and path.exists() else []


def figures_of(root: Path, name: str | None) -> list[str]:
    """The metrics of a run; a held-out metric is listed only if it has no training counterpart."""
    every = dict.fromkeys(
        key for row in rows_of(root, name) for key, value in row.items() if isinstance(value, (int, float))
    )
    return [key for key in every if key != "step" and not (key.startswith("held_out/") and key[9:] in every)] or [
        "loss"
    ]


def points(root: Path, name: str | None, figure: str) -> pd.DataFrame:
    """A metric and its held-out counterpart over the steps, thinned."""
    rows, lines = rows_of(root, name), []
    for key in (figure, f"held_out/{figure}"):
        have = [
            (row["step"], float(row[key])) for row in rows if isinstance(row.get(key), (int, float)) and "step" in row
        ]
        every = max(1, len(have) // POINTS)
        points = [*have[::every], *have[-1:]]
        lines += [(step, value, key) for step, value in points if np.isfinite(value)]
    return pd.DataFrame(lines, columns=["step", "value", "figure"]).drop_duplicates()


def progress_text(root: Path, name: str | None) -> str:
    """The current step of the total, and the latest metrics."""
    run, rows = open_run(root, name), rows_of(root, name)
    if run is None or not rows:
        return ""
    pairs = [pair for row in rows[-50:] for pair in row.items()]
    last = {key: value for key, value in pairs if not key.startswith("time/")}
    numbers = {key: value for key, value in last.items() if isinstance(value, float)}
    told = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
    return f"{last.get('step', 0):,} / {run.recipe.schedule.steps:,}: {told}"


def parents_text(root: Path, name: str | None) -> str:
    """The parent runs of a run, and their parents, one per line."""

    def lines(run: Run, depth: int) -> Iterator[str]:
        for role, path in run.recipe.parents.items():
            yield "  " * depth + f"{role}: {Path(path).name}"
            try:
                yield from lines(run.parent(role), depth + 1)
            except SanbuError:
                yield "  " * (depth + 1) + "?"

    run = open_run(root, name)
    return "\n".join(lines(run, 0)) if run else ""


def describe_recipe(root: Path, name: str | None) -> str:
    """The recipe of a run, one field per line."""
    run = open_run(root, name)
    return "\n".join(f"{path}={value}" for path, value, _, _ in walk(run.recipe)) if run else ""


def samples(root: Path, name: str | None) -> tuple[list[tuple[np.ndarray, str]], str]:
    """Samples drawn during training: images with their step, and texts."""
    run = open_run(root, name)
    files = sorted((run.folder / "samples").glob("*"), reverse=True)[: 2 * SHOWN] if run else []
    pictures = [file for file in files if file.suffix == ".png"][:SHOWN]
    drawn = [(np.asarray(Image.open(file)), file.stem) for file in pictures]
    said = [f"{file.stem}\n{file.read_text(encoding='utf-8')[:2000]}" for file in files if file.suffix == ".txt"][
        :SHOWN
    ]
    return drawn, "\n\n".join(said)
