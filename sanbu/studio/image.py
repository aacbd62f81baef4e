"""Image tab: one run, every sampling step shown. Compare tab: all runs side by side, and the latest measurements."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from sanbu.codecs.images import enlarged, grid
from sanbu.serve.errors import api_error
from sanbu.serve.images import ImageGeneration
from sanbu.serve.schemas import ImageBody
from sanbu.serve.service import Service
from sanbu.studio.address import keep_widgets
from sanbu.studio.error_texts import error_text
from sanbu.studio.page_work import PageWork
from sanbu.studio.pulses import Pulses
from sanbu.studio.translations import Language, language_of, say, translate


def image_tab(blocks: gr.Blocks, service: Service) -> None:
    """The image tab: shows the draft of every sampling step, enlarged."""
    names = service.names(writes=False)
    with gr.Row():
        name = gr.Dropdown(names, value=next(iter(names), None), label=say("model"), elem_id="image-model")
        first = labelled(service, names[0])
        label = gr.Textbox(label=say("of"), elem_id="image-label", visible=first)
        count = gr.Slider(1, 64, 16, step=1, label=say("count"))
        seed = gr.Number(0, precision=0, label=say("seed"), elem_id="image-seed")
    keep_widgets(blocks.load(None), {"image": name, "label": label, "count": count, "image_seed": seed})
    with gr.Row():
        draw = gr.Button(say("draw"), variant="primary", elem_id="draw")
        stop = gr.Button(say("stop"), elem_id="stop-drawing")
    unlabelled = gr.Markdown(say("unlabelled"), elem_id="image-unlabelled", visible=not first)
    state = gr.Textbox(label=say("progress"), elem_id="image-state", interactive=False)
    shown = gr.Image(
        label=say("picture"), elem_id="image-shown", format="png", height=420, buttons=["download", "fullscreen"]
    )
    draft = gr.Slider(1, 2, 1, step=1, label=say("draft"), elem_id="draft", visible=False)
    kept, work = gr.State([]), PageWork()

    async def draw_drafts(
        request: gr.Request, name: str, label: str, count: float, seed: float
    ) -> AsyncIterator[list[Any]]:
        made: list[np.ndarray] = []
        asked = label if labelled(service, name) else ""
        drawn = drafts(service, name, asked, int(count), int(seed or 0), language_of(request))
        async with aclosing(work.while_wanted(request, drawn)) as wanted:
            async for picture, text in wanted:
                made += [picture] if picture is not None else []
                yield [picture, text, gr.skip(), gr.skip()]
        number, last = len(made), made[-1] if made else gr.skip()
        yield [last, gr.skip(), made, gr.Slider(1, max(2, number), number, visible=number > 1)]

    # no limit: jobs wait in the queue of the lane instead, where Stop can cancel them
    draw.click(draw_drafts, [name, label, count, seed], [shown, state, kept, draft], concurrency_limit=None)
    stop.click(work.stop, None, None, queue=False, trigger_mode="multiple")
    name.change(lambda name: label_parts(service, name), name, [label, unlabelled], show_progress="hidden")
    draft.input(
        lambda made, number: made[int(number) - 1] if made else None, [kept, draft], shown, show_progress="hidden"
    )


def labelled(service: Service, name: str) -> bool:
    """Whether a run can be asked for a label; one that is not trained yet may have some."""
    return name not in service.runs or service.runs[name].run.recipe.data.space().classes > 0


def label_parts(service: Service, name: str) -> list[Any]:
    """The box for a label, or a line that says that a run has none."""
    has = labelled(service, name)
    return [gr.Textbox(visible=has), gr.Markdown(visible=not has)]


def compare_tab(blocks: gr.Blocks, service: Service, root: Path, pulses: Pulses) -> None:
    """The compare tab: the same label by every image run, with times, and the latest result of `sanbu compare`.

    Long because the widgets of a tab and their events refer to each other.
    """
    names = service.names(writes=False)
    with gr.Row():
        any_labels = any(labelled(service, name) for name in names)
        label = gr.Textbox(label=say("of"), elem_id="compare-label", visible=any_labels)
        seed = gr.Number(0, precision=0, label=say("seed"), elem_id="compare-seed")
        draw = gr.Button(say("every"), variant="primary", elem_id="draw-every")
    keep_widgets(blocks.load(None), {"compare_label": label, "compare_seed": seed})
    shown, told = [], []
    with gr.Row():
        for name in names:
            with gr.Column(min_width=160):
                shown.append(gr.Image(label=name, format="png", height=220, elem_id=f"compare-{name}", buttons=[]))
                told.append(gr.Textbox(show_label=False, container=False, interactive=False))

    async def every(request: gr.Request, label: str, seed: float) -> AsyncIterator[list[Any]]:
        pictures: list[Any] = [None] * len(names)
        texts = [""] * len(names)
        for number, name in enumerate(names):
            asked = label if labelled(service, name) else ""
            made = drafts(service, name, asked, 16, int(seed or 0), language_of(request))
            async for pictures[number], texts[number] in made:
                yield [*pictures, *texts]

    draw.click(every, [label, seed], [*shown, *told], concurrency_limit=2)
    note = gr.Markdown(elem_id="compare-note")
    table = gr.Dataframe(label=say("table"), interactive=False, elem_id="compare-table")
    plot = gr.Image(label=say("plot"), interactive=False, elem_id="compare-plot", buttons=["download", "fullscreen"])
    latest = gr.State(0.0)  # when the file that is shown was written

    def refresh(shown: float) -> list[Any]:
        path, now = latest_comparison(root), written(root)
        return [gr.skip()] * 4 if now == shown else [*comparison(path), now]

    look = pulses.changed(5, lambda: written(root))
    gr.on([look], refresh, latest, [note, table, plot, latest], show_progress="hidden")
    gr.on(None, refresh, latest, [note, table, plot, latest], show_progress="hidden")


def latest_comparison(root: Path) -> Path | None:
    """The newest result of `sanbu compare` below a folder."""
    return max(root.glob("**/compare.json"), key=lambda path: path.stat().st_mtime, default=None)


def written(root: Path) -> float:
    """When the newest result was written; -1 if there is none."""
    path = latest_comparison(root)
    return path.stat().st_mtime if path else -1.0


def comparison(path: Path | None) -> list[Any]:
    """The note, the table and the plot of a comparison; those that there are not are hidden."""
    if path is None:
        return [gr.Markdown(say("none_compared"), visible=True), gr.Dataframe(visible=False), gr.Image(visible=False)]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["rows"]
        simple = (int, float, str)
        rows = [{key: value for key, value in row.items() if isinstance(value, simple)} for row in content]
        columns = list(rows[0])
        plot = path.with_name("compare.png")
        picture = np.asarray(Image.open(plot).convert("RGB")) if plot.exists() else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # an unreadable file must not stop the page
        return [gr.Markdown(say("unreadable"), visible=True), gr.Dataframe(visible=False), gr.Image(visible=False)]
    cells = [[rounded(row.get(key)) for key in columns] for row in rows]
    return [
        gr.Markdown(visible=False),
        gr.Dataframe({"headers": columns, "data": cells}, visible=True),
        gr.Image(picture, visible=picture is not None),
    ]


def rounded(value: Any) -> Any:
    """A number rounded for the table."""
    return round(value, 4) if isinstance(value, float) else value


async def drafts(
    service: Service, name: str, label: str, count: int, seed: int, language: Language = "en"
) -> AsyncGenerator[tuple[np.ndarray | None, str]]:
    """An image grid per draft, with the number of steps and the time. Closing it cancels the sampling."""
    begun, steps, source = time.perf_counter(), 0, None
    try:
        body = ImageBody.model_validate({"prompt": label, "n": count, "seed": seed, "model": name})
        source = ImageGeneration(service.find(name), body).drafts()
        async for pictures in source:
            steps += 1
            word = translate("steps" if steps > 1 else "step", language)
            yield rgb(pictures), word.format(count=steps, seconds=time.perf_counter() - begun)
    except Exception as error:
        yield None, error_text(api_error(error), language)
    finally:
        if source is not None:
            await source.aclose()  # type: ignore[attr-defined]


def rgb(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Images as one enlarged RGB grid."""
    made = enlarged(grid(pictures))
    return np.repeat(made[..., None], 3, 2) if made.ndim == 2 else made
