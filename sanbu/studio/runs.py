"""Runs: live curves of any run, others laid over it, with its recipe, its parent runs and its samples.

One function fills the whole tab, so everything in it belongs to one run. A run of a table has a section of its own
(tables.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from sanbu.studio.address import chosen, every, keep
from sanbu.studio.metrics import Metrics, curves, figures_of, number
from sanbu.studio.pulses import Pulses
from sanbu.studio.run_folders import (
    Opened,
    find_runs,
    open_run,
    opened,
    parents_text,
    progress_text,
    rank_rows,
    recipe_text,
    sample_files,
    samples,
    state_of_all,
)
from sanbu.studio.tables import table_view
from sanbu.studio.translations import Language, language_of, say, translate

COLORS = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17748a", "#7f7f7f", "#b8860b", "#000080",
)  # fmt: skip
MOST = 8  # runs over one another
SMOOTHEST = 0.99


@dataclass(frozen=True)
class Choices:
    """What a person has chosen in the tab. axis: `step` or `time`."""

    run: str | None = None
    figure: str | None = None
    overlay: tuple[str, ...] = ()
    smoothing: float = 0.0
    axis: str = "step"


@dataclass(frozen=True)
class Shown:
    """What the page shows, so that only what has changed is sent again."""

    names: tuple[str, ...] | None = None
    run: tuple[Any, ...] = ()
    figures: tuple[str, ...] = ()
    curve: tuple[Any, ...] = ()
    titles: tuple[str, ...] = ()
    progress: str | None = None
    files: tuple[Path, ...] = ()
    ranks: tuple[Any, ...] = ()


def runs_tab(root: Path, blocks: gr.Blocks, pulses: Pulses) -> None:
    """The tab of all runs below a folder; it looks for changes every two seconds."""
    with gr.Row():
        name = gr.Dropdown([], label=say("model"), elem_id="run")
        figure = gr.Dropdown(["loss"], value="loss", label=say("figure"), elem_id="figure")
        overlay = gr.Dropdown([], multiselect=True, max_choices=MOST, label=say("overlay"), elem_id="overlay")
    with gr.Row():
        smoothing = gr.Slider(0, SMOOTHEST, 0, step=0.01, label=say("smoothing"), elem_id="smoothing")
        axes = [(say(f"by_{each}"), each) for each in ("step", "time")]
        axis = gr.Radio(axes, value="step", label=say("axis"), elem_id="axis")
    curve = gr.LinePlot(x="x", y="value", color="figure", height=320, label=say("curve"), elem_id="curve")
    with gr.Row():
        progress = gr.Textbox(
            label=say("progress"), lines=1, max_lines=6, interactive=False, elem_id="run-progress", scale=2
        )
        parents = gr.Textbox(label=say("parents"), interactive=False, elem_id="parents")
    pictures = gr.Gallery(
        label=say("over"),
        height=300,
        columns=6,
        object_fit="contain",
        format="png",
        elem_id="run-pictures",
        buttons=["download", "fullscreen"],
    )
    texts = gr.Textbox(label=say("over"), lines=6, max_lines=20, interactive=False, elem_id="run-texts")
    ranks = gr.Dataframe(label=say("ranks"), interactive=False, visible=False, elem_id="ranks")
    table_view(lambda name: open_run(root, name), name)
    with gr.Accordion(say("recipe"), open=False):
        recipe = gr.Textbox(show_label=False, lines=10, max_lines=40, interactive=False, elem_id="run-recipe")
    choices = {"run": name, "figure": figure, "overlay": overlay, "smoothing": smoothing, "axis": axis}
    results = {"curve": curve, "progress": progress, "parents": parents, "recipe": recipe, "pictures": pictures}
    opening = [blocks.load, pulses.changed(2, lambda: state_of_all(root))]
    filled = connect(root, opening, choices, {**results, "texts": texts, "ranks": ranks})
    keep(filled, choices)


def connect(root: Path, opening: Sequence[Any], choices: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Fill the tab when the page opens, when a run has changed, and after each choice; one call at a time."""
    shown = gr.State(Shown())
    outputs = {**choices, **results}

    def show(
        run: str | None,
        figure: str | None,
        overlay: list[str],
        smoothing: float,
        axis: str,
        shown: Shown,
        request: gr.Request,
    ) -> list[Any]:
        asked = read_choices(run, figure, overlay, smoothing, axis)
        update, shown = updates(root, asked, shown, language_of(request), request)
        return [*(update.get(each, gr.skip()) for each in outputs), shown]

    def draw_again(shown: Shown, drawn: tuple[str, ...]) -> list[Any]:
        return [gr.skip() if shown.titles == drawn else other_lines(shown.titles), shown.titles]

    asked = [*choices.values(), shown]
    filled = gr.on(
        [*opening, *(component.change for component in choices.values())],
        show,
        asked,
        [*outputs.values(), shown],
        show_progress="hidden",
        trigger_mode="always_last",
    )
    drawn = gr.State(())  # the lines that the plot was drawn for
    how: Any = {"show_progress": "hidden", "trigger_mode": "always_last"}
    shown.change(draw_again, [shown, drawn], [outputs["curve"], drawn], **how)
    return filled


def read_choices(run: str | None, figure: str | None, overlay: list[str], smoothing: float, axis: str) -> Choices:
    """The values of the widgets."""
    return Choices(run, figure, tuple(overlay or ()), number(smoothing) or 0.0, axis)


def updates(
    root: Path, asked: Choices, shown: Shown, language: Language = "en", request: gr.Request | None = None
) -> tuple[dict[str, Any], Shown]:
    """The components that change, and what is shown then. request: its address counts when the page opens."""
    changed: dict[str, Any] = {}
    if shown.names is None:
        asked = from_address(request)
        changed |= {"smoothing": asked.smoothing, "axis": asked.axis}
    names, listed, given = tuple(find_runs(root)), shown.names, asked.run
    asked = replace(asked, run=given or next(iter(names), None))
    if names != listed or asked.run != given:
        changed |= menus(names, asked, opening=listed is None or asked.run != given)
    found = opened(root, asked.run)
    changed |= parts_of_run(found, shown)
    figures = tuple(figures_of(found.metrics if found else Metrics()))
    figure = asked.figure if asked.figure in figures else figures[0]
    if figures != shown.figures or figure != asked.figure:
        changed["figure"] = gr.Dropdown(figures, value=figure)
    others = {name: opened(root, name) for name in asked.overlay if name != asked.run}
    asked = replace(asked, figure=figure)
    drawn = [each for each in (found, *others.values()) if each is not None]
    key, titles = curve_key(drawn, asked), shown.titles
    if key != shown.curve:
        points = curves([(each.name, each.metrics) for each in drawn], figure, asked.smoothing, asked.axis == "time")
        titles = tuple(dict.fromkeys(points["figure"]))
        changed["curve"] = gr.LinePlot(points, x_title=translate(f"axis_{asked.axis}", language))
    lines = [progress_text(found, language) or nothing_text(root, asked.run, language)]
    lines += [nothing_text(root, name, language) for name, other in others.items() if other is None]
    text = "\n".join(lines)
    if text != shown.progress:
        changed["progress"] = text
    files = sample_files(found)
    if files != shown.files or listed is None:
        pictures, texts = samples(files)
        changed["pictures"] = gr.Gallery(pictures, visible=bool(pictures))
        changed["texts"] = gr.Textbox(texts, visible=bool(texts))
    ranks = rank_rows(found)
    if ranks != shown.ranks:
        changed["ranks"] = rank_table(ranks, language)
    return changed, Shown(names, run_key(found), figures, key, titles, text, files, ranks)


def from_address(request: gr.Request | None) -> Choices:
    """The choices in the address of the page; what is not allowed there is left out."""
    try:
        smoothing = min(SMOOTHEST, max(0.0, float(chosen(request, "smoothing") or 0)))
    except ValueError:
        smoothing = 0.0
    axis = "time" if chosen(request, "axis") == "time" else "step"
    overlay = tuple(dict.fromkeys(every(request, "overlay")))[:MOST]
    return Choices(chosen(request, "run") or None, chosen(request, "figure") or None, overlay, smoothing, axis)


def menus(names: Sequence[str], asked: Choices, opening: bool) -> dict[str, Any]:
    """The lists of runs. A run that is chosen stays in them when its folder has gone. opening: also what is chosen."""
    listed = list(dict.fromkeys([*names, *filter(None, [asked.run])]))
    others = list(dict.fromkeys([*names, *asked.overlay]))
    if not opening:
        return {"run": gr.Dropdown(listed), "overlay": gr.Dropdown(others, multiselect=True)}
    return {
        "run": gr.Dropdown(listed, value=asked.run),
        "overlay": gr.Dropdown(others, value=list(asked.overlay), multiselect=True),
    }


def run_key(found: Opened | None) -> tuple[Any, ...]:
    """What tells one run from another, also from an earlier one in the same folder."""
    return (found.name, found.recipe_time, found.error) if found else ()


def parts_of_run(found: Opened | None, shown: Shown) -> dict[str, Any]:
    """The parts of the tab that change only with the run."""
    if run_key(found) == shown.run and shown.names is not None:
        return {}
    return {"parents": parents_text(found), "recipe": recipe_text(found)}


def rank_table(rows: Sequence[Sequence[str]], language: Language) -> gr.Dataframe:
    """The ranks of a run in many processes; hidden for a run of one."""
    titles = [translate(word, language) for word in ("rank", "machine", "rows_per_second", "waiting_part")]
    headers = [*titles, "MFU", translate("memory", language)]
    return gr.Dataframe({"headers": headers, "data": [list(row) for row in rows]}, visible=bool(rows))


def curve_key(drawn: Sequence[Opened], asked: Choices) -> tuple[Any, ...]:
    """What the curve depends on: the runs, how many rows each has and the last of them, and the choices."""
    ends = [(one.name, len(one.metrics.rows), str(one.metrics.rows[-1:])) for one in drawn]
    return (*ends, asked.figure, asked.smoothing, asked.axis)


def other_lines(titles: Sequence[str]) -> Any:
    """The plot with other lines than before. It is drawn again for them, so their points must be there already."""
    colors = {title: COLORS[place % len(COLORS)] for place, title in enumerate(titles)}
    return gr.LinePlot(color_map=colors, colors_in_legend=list(titles))


def nothing_text(root: Path, name: str | None, language: Language) -> str:
    """Why no run is shown: there are none, or none of that name."""
    return translate("gone_run" if name else "no_runs", language).format(name=name, root=root)
