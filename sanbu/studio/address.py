"""The tab and its choices in the address of the page, so that a reload, a bookmark or a link brings them back.

The browser writes them, with `history.replaceState`; the server reads them from the address of each request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

WRITE = """(...values) => {
  const address = new URL(window.location.href);
  NAMES.forEach((name, place) => {
    address.searchParams.delete(name);
    for (const value of [values[place]].flat())
      if (value !== null && value !== undefined && value !== "") address.searchParams.append(name, value);
  });
  if (address.href !== window.location.href) window.history.replaceState(window.history.state, "", address);
  return [];
}"""


def keep(filled: Any, choices: Mapping[str, Any]) -> None:
    """Write choices into the address when they change, and after a tab was filled, which may come before it is drawn.

    filled: the event that fills it. choices: components by their names in the address.
    """
    filled.success(None, list(choices.values()), None, js=WRITE.replace("NAMES", json.dumps(list(choices))))
    for name, component in choices.items():
        component.change(None, component, None, js=WRITE.replace("NAMES", json.dumps([name])))


def keep_tab(tab: gr.Tab, name: str) -> None:
    """Write a tab into the address when it is selected, but not before `restore_tab` has read the address."""
    write = WRITE.replace("NAMES", json.dumps(["tab"]))
    tab.select(None, None, None, js=f"() => window.sanbuTabRestored ? ({write})({json.dumps(name)}) : []")


def restore_tab(blocks: gr.Blocks, tabs: gr.Tabs) -> Any:
    """Select the tab in the address when the page opens; returns the event."""
    names = [tab.id for tab in tabs.children if isinstance(tab, gr.Tab)]

    def select(request: gr.Request) -> Any:
        name = chosen(request, "tab")
        return gr.Tabs(selected=name) if name in names else gr.skip()

    selected = blocks.load(select, None, tabs, show_progress="hidden")
    selected.success(None, None, None, js="() => { window.sanbuTabRestored = true; return []; }")
    return selected


def chosen(request: gr.Request | None, name: str) -> str:
    """A choice in the address; empty if there is none."""
    return next(iter(every(request, name)), "")


def every(request: gr.Request | None, name: str) -> list[str]:
    """All values of a choice in the address."""
    if request is None:
        return []
    return [str(value) for key, value in request.query_params.multi_items() if key == name]
