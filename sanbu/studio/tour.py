"""Tour: how far every part of the demo is, with a live curve and the samples drawn during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from sanbu.codecs.images import enlarged
from sanbu.evaluation.jobs import Jobs, Progress
from sanbu.progress import duration
from sanbu.studio.metrics import Metrics, curves, figures_of
from sanbu.studio.pulses import Pulses
from sanbu.studio.run_folders import opened
from sanbu.studio.translations import Language, language_of, say, translate

Parts = Callable[[], Sequence[Progress]]
SHOWN = 2000  # characters of a sample
UNITS = {" min": " 分", " h": " 小时", " s": " 秒"}


def tour_tab(jobs: Jobs, parts: Parts, root: Path, pulses: Pulses) -> None:
    """The tour; it looks for changes every two seconds. parts: what a person sees of the jobs. root: of the runs."""
    gr.Markdown(say("tour_about"))
    table = gr.HTML(elem_id="tour")
    with gr.Row():
        curve = gr.LinePlot(
            x="x", x_title="step", y="value", color="figure", height=260, label=say("curve"), elem_id="tour-curve"
        )
        text = gr.Textbox(label=say("sample"), lines=9, max_lines=9, interactive=False, elem_id="tour-text")
    gallery = gr.Gallery(
        label=say("samples"),
        columns=6,
        height=240,
        object_fit="contain",
        elem_id="tour-pictures",
        buttons=["fullscreen"],
    )
    kept = gr.State(())  # the files of the pictures that are shown

    def refresh(kept: tuple[Path, ...], request: gr.Request) -> list[Any]:
        found = list(parts())
        files = tuple(path for each in found for path in newest_samples(each, "*.png"))
        drawn = gr.skip() if files == kept else [picture(path) for path in files]
        told = table_of(jobs, found, language_of(request))
        return [told, *curve_and_text(found, root), drawn, files]

    def look() -> tuple[Any, ...]:
        found = list(parts())
        files = tuple(path for each in found for path in newest_samples(each, "*.png"))
        return table_of(jobs, found, "en"), curve_and_text(found, root)[1], files

    everything = [table, curve, text, gallery, kept]
    gr.on([pulses.changed(2, look)], refresh, kept, everything, show_progress="hidden")
    gr.on(None, refresh, kept, everything, show_progress="hidden")


def table_of(jobs: Jobs, parts: Sequence[Progress], language: Language) -> str:
    """The parts as an HTML table, under one line for all of them."""
    rows = "".join(row_of(each, language) for each in parts)
    return f"<p><b>{escape(headline(jobs, language))}</b></p><table>{rows}</table>"


def headline(jobs: Jobs, language: Language) -> str:
    """How long all of it takes, that it is done, or why it stopped."""
    if jobs.error is not None:
        return translate("stopped", language).format(error=jobs.error)
    if not jobs.unfinished():
        return translate("all_done", language)
    return translate("all_left", language).format(left=time_text(jobs.left(), language))


def row_of(each: Progress, language: Language) -> str:
    """One part: its name, what it is, a bar, and the time left or that it is ready."""
    name = each.job.run.name if each.job.run else each.job.name
    about = translate(f"tour_{name.partition('-')[0]}", language)
    if each.status == "running":
        left = translate("left", language).format(left=time_text(each.left, language))
        how = f"{each.text}, {left}" if each.text else left
    else:
        tab = tab_of(each)
        where = translate("try", language).format(tab=translate(tab, language)) if tab else ""
        how = translate(each.status, language) + (where if each.status == "done" else "")
    bar = f'<progress max="1" value="{each.part:.3f}"></progress>'
    texts = (f"<b>{escape(name)}</b>", escape(about), bar, escape(how))
    cells = "".join(f"<td>{text}</td>" for text in texts)
    return f'<tr class="{each.status}">{cells}</tr>'


def tab_of(each: Progress) -> str:
    """The tab in which a part can be tried when it is done; none for a model that only scores."""
    if each.job.run is None:
        return "compare" if each.job.name == "comparison" else ""
    return "image" if each.job.run.parent.name == "runs" else "chat" if each.job.run.name != "reward" else ""


def time_text(seconds: float, language: Language) -> str:
    """A time in the units of the language."""
    words = duration(seconds)
    for unit in UNITS if language == "zh" else ():
        words = words.replace(unit, UNITS[unit])
    return words


def curve_and_text(parts: Sequence[Progress], root: Path) -> list[Any]:
    """The loss and the newest sample of text, of the run that is trained now: the first, if there are several."""
    begun = [each for each in parts if each.job.run and (each.job.run / "recipe.json").exists()]
    running = [each for each in begun if each.status == "running"]
    if not begun:
        return [gr.skip(), gr.skip()]
    now = running[0] if running else begun[-1]
    name = now.job.run.relative_to(root).as_posix() if now.job.run else None
    texts = [path for each in begun for path in newest_samples(each, "*.txt")]
    text = texts[-1] if texts else None
    said = f"{origin(text)}\n{text.read_text(encoding='utf-8')[:SHOWN]}" if text else ""
    run = opened(root, name)
    metrics = run.metrics if run else Metrics()
    curve = curves([(run.name, metrics)], figures_of(metrics)[0]) if run and metrics.rows else gr.skip()
    return [curve, said]


def newest_samples(each: Progress, pattern: str) -> list[Path]:
    """The newest file of samples that a run drew during training, if any."""
    return sorted((each.job.run / "samples").glob(pattern))[-1:] if each.job.run else []


def picture(path: Path) -> tuple[np.ndarray, str]:
    """A picture for the gallery, and where it is from."""
    return enlarged(np.asarray(Image.open(path))), origin(path)


def origin(path: Path) -> str:
    """The run and the step of a file of samples."""
    return f"{path.parent.parent.name}, step {int(path.stem.rpartition('-')[2]):,}"
