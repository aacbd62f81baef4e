"""Image tab: one run, every sampling step shown. Compare tab: all runs side by side, and the latest measurements."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from sanbu.codecs.images import enlarged, grid
from sanbu.serve.errors import api_error
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.images import ImageGeneration
from sanbu.serve.schemas import ImageBody
from sanbu.serve.service import Service
from sanbu.studio.translations import say


def image_tab(service: Service) -> None:
    """The image tab: shows the draft of every sampling step, enlarged."""
    runs = {one.name: one for one in service.runs.values() if not one.writes}
    with gr.Row():
        name = gr.Dropdown(list(runs), value=next(iter(runs), None), label=say("model"), elem_id="image-model")
        label = gr.Textbox(label=say("of"), elem_id="image-label")
        count = gr.Slider(1, 64, 16, step=1, label=say("count"))
        seed = gr.Number(0, precision=0, label=say("seed"))
    with gr.Row():
        draw = gr.Button(say("draw"), variant="primary", elem_id="draw")
        stop = gr.Button(say("stop"))
    state = gr.Textbox(label=say("progress"), elem_id="image-state", interactive=False)
    shown = gr.Image(
        label=say("picture"), elem_id="image-shown", format="png", height=420, buttons=["download", "fullscreen"]
    )

    draft = gr.Slider(1, 2, 1, step=1, label=say("draft"), elem_id="draft", visible=False)
    kept = gr.State([])

    async def draw_drafts(name: str, label: str, count: float, seed: float) -> AsyncIterator[list[Any]]:
        made: list[np.ndarray] = []
        if name in runs:
            async for picture, text in drafts(runs[name], label, int(count), int(seed or 0)):
                made += [picture] if picture is not None else []
                yield [picture, text, gr.skip(), gr.skip()]
        yield [gr.skip(), gr.skip(), made, gr.Slider(1, max(2, len(made)), len(made), visible=len(made) > 1)]

    event = draw.click(draw_drafts, [name, label, count, seed], [shown, state, kept, draft], concurrency_limit=4)
    stop.click(None, cancels=[event])
    draft.input(
        lambda made, number: made[int(number) - 1] if made else None, [kept, draft], shown, show_progress="hidden"
    )


def compare_tab(service: Service, root: Path) -> None:
    """The compare tab: the same label by every image run, with times, and the latest result of `sanbu compare`.

    Long because the widgets of a tab and their events refer to each other.
    """
    runs = [one for one in service.runs.values() if not one.writes]
    with gr.Row():
        label = gr.Textbox(label=say("of"))
        seed = gr.Number(0, precision=0, label=say("seed"))
        draw = gr.Button(say("every"), variant="primary", elem_id="draw-every")
    shown, told = [], []
    with gr.Row():
        for one in runs:
            with gr.Column(min_width=160):
                shown.append(
                    gr.Image(label=one.name, format="png", height=220, elem_id=f"compare-{one.name}", buttons=[])
                )
                told.append(gr.Textbox(show_label=False, container=False, interactive=False))

    async def every(label: str, seed: float) -> AsyncIterator[list[Any]]:
        pictures: list[Any] = [None] * len(runs)
        texts = [""] * len(runs)
        for number, one in enumerate(runs):
            async for pictures[number], texts[number] in drafts(one, label, 16, int(seed or 0)):
                yield [*pictures, *texts]

    draw.click(every, [label, seed], [*shown, *told], concurrency_limit=2)
    found = sorted(root.glob("**/compare.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        gr.Markdown(say("none_compared"))
        return
    try:
        content = json.loads(found[-1].read_text(encoding="utf-8"))["rows"]
        simple = (int, float, str)
        rows = [{key: value for key, value in row.items() if isinstance(value, simple)} for row in content]
        columns = list(rows[0])
        plot = found[-1].with_name("compare.png")
        picture = np.asarray(Image.open(plot).convert("RGB")) if plot.exists() else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # an unreadable file must not stop the page
        gr.Markdown(say("unreadable"))
        return
    gr.Dataframe(
        [[rounded(row.get(key)) for key in columns] for row in rows],
        headers=columns,
        label=say("table"),
        interactive=False,
    )
    if picture is not None:
        gr.Image(picture, label=say("plot"), interactive=False)


def rounded(value: Any) -> Any:
    """A number rounded for the table."""
    return round(value, 4) if isinstance(value, float) else value


async def drafts(served: HostedRun, label: str, count: int, seed: int) -> AsyncIterator[tuple[np.ndarray | None, str]]:
    """An image grid per draft, with the number of steps and the time. Closing it cancels the sampling."""
    begun, steps, source = time.perf_counter(), 0, None
    try:
        body = ImageBody.model_validate({"prompt": label, "n": count, "seed": seed, "model": served.name})
        source = ImageGeneration(served, body).drafts()
        async for pictures in source:
            steps += 1
            yield rgb(pictures), f"{steps} step{'s' if steps > 1 else ''}, {time.perf_counter() - begun:.2f} s"
    except Exception as error:
        yield None, str(api_error(error))
    finally:
        if source is not None:
            await source.aclose()  # type: ignore[attr-defined]


def rgb(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Images as one enlarged RGB grid."""
    made = enlarged(grid(pictures))
    return np.repeat(made[..., None], 3, 2) if made.ndim == 2 else made
