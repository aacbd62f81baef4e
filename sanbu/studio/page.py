"""The page with its tabs, served beside the API on the same port. It loads nothing from other hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from fastapi import FastAPI

from sanbu.serve.errors import APIError
from sanbu.serve.service import Service
from sanbu.studio.accessible import NAMES
from sanbu.studio.address import keep_tab, restore_tab
from sanbu.studio.chat import chat_tab
from sanbu.studio.first_scripts import FirstScripts
from sanbu.studio.image import compare_tab, image_tab
from sanbu.studio.label import label_tab
from sanbu.studio.pulses import PATH, Pulses
from sanbu.studio.recipes import recipes_tab
from sanbu.studio.runs import runs_tab
from sanbu.studio.speech import speech_tab
from sanbu.studio.style import STYLE, theme
from sanbu.studio.translations import TEXTS, say

Tour = Callable[[Pulses], None]
LOOK = 0.04  # seconds between two looks at the queue of events; by default 0.001, 6 % of a core of an idle server


def page(
    service: Service, root: Path, local: bool = True, tour: Tour | None = None, pulses: Pulses | None = None
) -> gr.Blocks:
    """The tabs for the served runs.

    root: folder of the runs. local: also show the tabs that train and write files. tour: makes a tab that comes first.
    pulses: what the tabs look at.
    """
    pulses = pulses or Pulses()
    texts, pictures = service.names(writes=True), service.names(writes=False)
    with gr.Blocks(title="Sanbu 三步", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown("## 三步 Sanbu")
        with gr.Tabs() as tabs:
            if tour is not None:
                with page_tab("tour"):
                    tour(pulses)
            if texts:
                with page_tab("chat"):
                    chat_tab(blocks, service)
            if pictures:
                with page_tab("image"):
                    image_tab(blocks, service)
            if service.sounding("voices"):
                with page_tab("speech"):
                    speech_tab(blocks, service)
            with page_tab("compare"):
                compare_tab(blocks, service, root, pulses)
            with page_tab("runs"):
                runs_tab(root, blocks, pulses)
            if local:
                if texts:
                    with page_tab("label"):
                        label_tab(blocks, service, root / "rankings.jsonl")
                with page_tab("recipes"):
                    recipes_tab(root, blocks, pulses)
        pulses.connect(tabs, restore_tab(blocks, tabs))
        blocks.load(None, None, None, js=NAMES)
    blocks.queue(api_open=False)
    blocks._queue.sleep_when_free = LOOK
    blocks._queue.progress_update_sleep_when_free = 1.0  # no tab uses the library's progress bar
    return blocks


def page_tab(name: str) -> gr.Tab:
    """A tab that is in the address while it is selected."""
    tab = gr.Tab(say(name), id=name)
    keep_tab(tab, name)
    return tab


def mount(app: FastAPI, service: Service, root: Path, local: bool = True, tour: Tour | None = None) -> FastAPI:
    """Mount the page at /; unknown API paths return an error in the API's format. See `page`."""
    app.add_api_route("/v1/{rest:path}", not_found, methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
    app.add_middleware(FirstScripts)
    pulses = Pulses()
    app.add_api_route(PATH, pulses.answer, include_in_schema=False)
    return gr.mount_gradio_app(
        app,
        page(service, root, local, tour, pulses),
        path="/",
        footer_links=[],
        ssr_mode=False,
        i18n=TEXTS,
        css=STYLE,
        show_error=True,
        enable_monitoring=False,
        theme=theme(),
    )


async def not_found(rest: str) -> None:
    """Raise APIError 404."""
    raise APIError(404, f"no endpoint at /v1/{rest[:80]}; see /openapi.json", code="not_found")
