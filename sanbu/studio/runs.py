"""Runs: live curves of any run being trained, its recipe, where it began, and what it drew on the way."""

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

from sanbu.config import SanbuError, walk
from sanbu.run import Run
from sanbu.studio.translations import say

POINTS, SHOWN = 400, 12


def runs_tab(root: Path) -> None:
    """The tab of every run below a folder; looked at again every two seconds."""
    names = found(root)
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
    with gr.Accordion(say("recipe"), open=False):
        recipe = gr.Textbox(show_label=False, lines=10, max_lines=40, interactive=False, elem_id="run-recipe")

    def look(name: str | None, figure: str) -> list[Any]:
        return [points(root, name, figure), how_far(root, name)]

    def chosen(name: str | None) -> list[Any]:
        figures = figures_of(root, name)
        figure = "loss" if "loss" in figures else next(iter(figures), "loss")
        drawn, said = samples(root, name)
        return [
            gr.Dropdown(figures, value=figure), *look(name, figure), chain(root, name), described(root, name),
            gr.Gallery(drawn, visible=bool(drawn)), gr.Textbox(said, visible=bool(said)),
        ]  # fmt: skip

    def refreshed(name: str | None) -> Any:
        names = found(root)
        return gr.Dropdown(names, value=name if name in names else next(iter(names), None))

    everything = [figure, curve, progress, parents, recipe, pictures, texts]
    name.change(chosen, name, everything)
    figure.change(look, [name, figure], [curve, progress])
    name.focus(refreshed, name, name)
    gr.Timer(2).tick(look, [name, figure], [curve, progress], show_progress="hidden")
    gr.on(None, lambda: chosen(next(iter(found(root)), None)), None, everything)


def found(root: Path) -> list[str]:
    """Run folders below a folder, latest first."""
    files = (file for depth in ("*", "*/*", "*/*/*") for file in root.glob(f"{depth}/recipe.json"))
    dated = sorted(((file.stat().st_mtime, file.parent) for file in files), reverse=True)
    return [folder.relative_to(root).as_posix() for _, folder in dated]


def opened(root: Path, name: str | None) -> Run | None:
    """A run by the name the page shows; None for anything else that may be sent."""
    if not name or name not in found(root):
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
    """The figures of a run; read again when there are more."""
    run = opened(root, name)
    path = run.folder / "metrics.jsonl" if run else None
    return _rows(path, path.stat().st_size) if path is not None and path.exists() else []


def figures_of(root: Path, name: str | None) -> list[str]:
    """What a run measures, the held-out twin of a figure left to its curve."""
    every = dict.fromkeys(
        key for row in rows_of(root, name) for key, value in row.items() if isinstance(value, (int, float))
    )
    return [key for key in every if key != "step" and not (key.startswith("held_out/") and key[9:] in every)] or [
        "loss"
    ]


def points(root: Path, name: str | None, figure: str) -> pd.DataFrame:
    """A figure over steps, thinned, and its held-out twin."""
    rows, lines = rows_of(root, name), []
    for key in (figure, f"held_out/{figure}"):
        have = [
            (row["step"], float(row[key])) for row in rows if isinstance(row.get(key), (int, float)) and "step" in row
        ]
        every = max(1, len(have) // POINTS)
        points = [*have[::every], *have[-1:]]
        lines += [(step, value, key) for step, value in points if np.isfinite(value)]
    return pd.DataFrame(lines, columns=["step", "value", "figure"]).drop_duplicates()


def how_far(root: Path, name: str | None) -> str:
    """The latest step of all, and the latest figures."""
    run, rows = opened(root, name), rows_of(root, name)
    if run is None or not rows:
        return ""
    pairs = [pair for row in rows[-50:] for pair in row.items()]
    last = {key: value for key, value in pairs if not key.startswith("time/")}
    numbers = {key: value for key, value in last.items() if isinstance(value, float)}
    told = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
    return f"{last.get('step', 0):,} / {run.recipe.schedule.steps:,}: {told}"


def chain(root: Path, name: str | None) -> str:
    """A run and the runs it began from, as a line."""

    def lines(run: Run, depth: int) -> Iterator[str]:
        for role, path in run.recipe.parents.items():
            yield "  " * depth + f"{role}: {Path(path).name}"
            try:
                yield from lines(run.parent(role), depth + 1)
            except SanbuError:
                yield "  " * (depth + 1) + "?"

    run = opened(root, name)
    return "\n".join(lines(run, 0)) if run else ""


def described(root: Path, name: str | None) -> str:
    """The recipe of a run, a field a line."""
    run = opened(root, name)
    return "\n".join(f"{path}={value}" for path, value, _, _ in walk(run.recipe)) if run else ""


def samples(root: Path, name: str | None) -> tuple[list[tuple[np.ndarray, str]], str]:
    """What a run drew on the way: pictures with their step, or texts."""
    run = opened(root, name)
    files = sorted((run.folder / "samples").glob("*"), reverse=True)[: 2 * SHOWN] if run else []
    pictures = [file for file in files if file.suffix == ".png"][:SHOWN]
    drawn = [(np.asarray(Image.open(file)), file.stem) for file in pictures]
    said = [f"{file.stem}\n{file.read_text(encoding='utf-8')[:2000]}" for file in files if file.suffix == ".txt"][
        :SHOWN
    ]
    return drawn, "\n\n".join(said)
