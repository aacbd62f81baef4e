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
  window.history.replaceState(window.history.state, "", address);
  return [];
}"""


def keep(choices: Mapping[str, Any]) -> None:
    """Write choices into the address whenever they change. choices: components by their names in the address."""
    for name, component in choices.items():
        component.change(None, component, None, js=WRITE.replace("NAMES", json.dumps([name])), queue=False)


def keep_tab(tab: gr.Tab, name: str) -> None:
    """Write a tab into the address when it is selected."""
    tab.select(None, None, None, js=f"() => ({WRITE.replace('NAMES', json.dumps(['tab']))})({json.dumps(name)})")


def chosen(request: gr.Request | None, name: str) -> str:
    """A choice in the address; empty if there is none."""
    return next(iter(every(request, name)), "")


def every(request: gr.Request | None, name: str) -> list[str]:
    """All values of a choice in the address."""
    if request is None:
        return []
    return [str(value) for key, value in request.query_params.multi_items() if key == name]
