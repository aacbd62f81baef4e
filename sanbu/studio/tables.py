"""The view of a run of a table: the laws of its columns, their associations and its rows, real against generated."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from sanbu.codecs.columns import Column
from sanbu.config import SanbuError
from sanbu.evaluation.tables.associations import associations
from sanbu.evaluation.tables.distances import column_distances
from sanbu.evaluation.tables.judge import FEWEST
from sanbu.evaluation.tables.measure import rows_of, table_of
from sanbu.machine import fitting_threads
from sanbu.run import Run
from sanbu.studio.messages import told
from sanbu.studio.page_work import PageWork
from sanbu.studio.translations import Language, language_of, say, translate

ROWS, SHOWN, PANELS, PAIRS, BARS = 1000, 20, 12, 30, 12
REAL, DRAWN = "real", "generated"


@dataclass(frozen=True)
class View:
    """Rows of a run, and real ones: held-out rows, or training rows where few are held out. Cells [B, C]."""

    columns: tuple[Column, ...]
    real: np.ndarray
    drawn: np.ndarray
    rows: list[dict[str, Any]]

    @property
    def sets(self) -> dict[str, np.ndarray]:
        """Both by name."""
        return {REAL: self.real, DRAWN: self.drawn}

    @property
    def order(self) -> list[int]:
        """The places of the columns, those that differ most first."""
        import torch

        pair = (torch.from_numpy(cells) for cells in (self.drawn, self.real))
        return np.argsort(-np.array(column_distances(self.columns, *pair)), kind="stable").tolist()


def is_table(run: Run | None) -> bool:
    """Whether a run draws rows of a table."""
    return run is not None and run.codec.medium == "table" and run.recipe.strategy.draws


def view(run: Run, seed: int = 0) -> View:
    """Draw rows of a run. Raises SanbuError if the table is not there any more."""
    data: Any = table_of(run).build()
    held_out = data.parts["held_out"]
    real = held_out if len(held_out) >= FEWEST else data.parts["train"]
    with fitting_threads(run.model):
        drawn = rows_of(run, ROWS, seed)
    rows = [run.codec.read(row) for row in drawn[:SHOWN]]
    return View(data.features.columns, real.numpy(), drawn.numpy(), rows)


# -- pictures ---------------------------------------------------------------------------------------------------------


def shares(column: Column, cells: np.ndarray) -> list[tuple[str, float]]:
    """The share of each name of a category, and of the missing cell; the most frequent names alone."""
    names = [*column.names, *([column.blank or "missing"] if column.missing else [])]
    codes = np.where(np.isnan(cells), len(column.names), cells).astype(int)
    counts = np.bincount(codes, minlength=len(names))[: len(names)] / max(1, len(cells))
    return list(zip(names, counts.tolist(), strict=True))


def below(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distribution function of the numbers that are there: values, and the share of the cells up to each."""
    values = np.sort(cells[~np.isnan(cells)])
    return values, np.arange(1, len(values) + 1) / max(1, len(values))


def draw_laws(view: View) -> np.ndarray:
    """A picture of the laws of the columns that differ most: shares of names, distribution functions of numbers."""
    from matplotlib.figure import Figure

    places = view.order[:PANELS]
    across = min(4, len(places))
    down = -(-len(places) // across)
    canvas = Figure(figsize=(4 * across, 2.8 * down), layout="constrained")
    every = canvas.subplots(down, across, squeeze=False).flatten().tolist()
    canvas.suptitle(" ")  # room for the label of the picture
    for axes in every[len(places) :]:
        axes.remove()
    for axes, place in zip(every, places, strict=False):
        column = view.columns[place]
        if column.dense:
            for name, cells in view.sets.items():
                axes.step(*below(cells[:, place]), where="post", label=name)
        else:
            draw_bars(axes, column, {name: cells[:, place] for name, cells in view.sets.items()})
        axes.set_title(plain(column.name), fontsize=9)
        axes.legend(fontsize=7)
    return as_array(canvas)


def draw_bars(axes: Any, column: Column, sets: Mapping[str, np.ndarray]) -> None:
    """Bars of the most frequent names, side by side."""
    found = {name: dict(shares(column, cells)) for name, cells in sets.items()}
    names = sorted(found[REAL], key=lambda name: -found[REAL][name])[:BARS]
    for number, (title, share) in enumerate(found.items()):
        left = np.arange(len(names)) + 0.4 * number - 0.2
        axes.bar(left, [share[name] for name in names], 0.4, label=title)
    axes.set_xticks(range(len(names)), [plain(name[:12]) for name in names], rotation=45, ha="right", fontsize=7)


def draw_associations(view: View) -> np.ndarray:
    """Two maps of the associations of the columns, real and generated."""
    from matplotlib.figure import Figure

    columns = view.columns[:PAIRS]
    canvas = Figure(figsize=(12, 5.5), layout="constrained")
    canvas.suptitle(" ")
    both = canvas.subplots(1, 2)
    for axes, (name, cells) in zip(both, view.sets.items(), strict=True):
        image = axes.imshow(associations(columns, cells[:, : len(columns)]), cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(name)
        axes.set_xticks(range(len(columns)), [plain(each.name[:16]) for each in columns], rotation=90, fontsize=7)
        axes.set_yticks(range(len(columns)), [plain(each.name[:16]) for each in columns], fontsize=7)
    canvas.colorbar(image, ax=both.tolist(), shrink=0.8)
    return as_array(canvas)


def plain(text: str) -> str:
    """A text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def as_array(canvas: Any) -> np.ndarray:
    """A figure as pixels."""
    written = io.BytesIO()
    canvas.savefig(written, format="png", dpi=90)
    return np.asarray(Image.open(written).convert("RGB"))


def cells_of(view: View) -> dict[str, list[Any]]:
    """The first generated rows as headings and cells."""
    names = [column.name for column in view.columns]
    rows = [[row[name] for name in names] for row in view.rows]
    return {"headers": names, "data": [["" if cell is None else cell for cell in row] for row in rows]}


# -- the section ------------------------------------------------------------------------------------------------------


def nothing(error: str = "") -> list[Any]:
    """The note, the pictures and the rows while there is nothing to show, or the reason why not."""
    return [gr.Markdown(error, visible=bool(error)), *[gr.Image(None, visible=False)] * 2, gr.Dataframe(visible=False)]


def drawn_view(run: Run | None, name: str | None, seed: int, language: Language) -> list[Any]:
    """The note, the pictures and the rows of a run."""
    if run is None:
        return nothing(translate("gone_table", language).format(name=name))
    try:
        found = view(run, seed)
    except SanbuError as error:
        return nothing(told(error, language))
    made = [gr.Image(picture(found), visible=True) for picture in (draw_laws, draw_associations)]
    return [gr.Markdown(visible=False), *made, gr.Dataframe(cells_of(found), visible=True)]


def table_view(open_run: Callable[[str | None], Run | None], name: gr.Dropdown) -> None:
    """The section of a run of a table below its curves; hidden for other runs."""
    with gr.Column(visible=False, elem_id="table-view") as section:
        with gr.Row():
            seed = gr.Number(0, label=say("seed"), precision=0, minimum=0, elem_id="table-seed")
            button = gr.Button(say("draw"), elem_id="table-draw")
        note = gr.Markdown(visible=False, elem_id="table-note")
        pictures = [
            gr.Image(
                label=say(word),
                visible=False,
                interactive=False,
                format="png",
                elem_id=f"table-{word}",
                buttons=["download", "fullscreen"],
            )
            for word in ("laws", "associations")
        ]
        rows = gr.Dataframe(label=say("rows"), visible=False, interactive=False, elem_id="table-rows")
    shown, work = [note, *pictures, rows], PageWork()

    def select(name: str | None, request: gr.Request) -> list[Any]:
        work.stop(request)  # rows of one run never appear under another
        return [gr.Column(visible=is_table(open_run(name))), *nothing()]

    def draw(name: str | None, seed: float | None, request: gr.Request) -> list[Any]:
        with work.begin(request) as wanted:
            drawn = drawn_view(open_run(name), name, int(seed or 0), language_of(request))
            return drawn if wanted() else [gr.skip()] * len(shown)

    button.click(draw, [name, seed], shown)
    name.change(select, name, [section, *shown])
