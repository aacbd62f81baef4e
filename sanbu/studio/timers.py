"""Polling: timers that tick only while their tab is open, and update components only when something has changed.

The browser starts and stops them without a request to the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

START = """(name) => OWNERS.map((owner) => ({__type__: "update", active: owner === name}))"""
OPENED = "() => (START)(window.sanbuTab = NAME)"
RESTORED = """() => {
  const names = NAMES, name = window.sanbuTab ?? new URLSearchParams(location.search).get("tab");
  return (START)(names.includes(name) ? name : names[0]);
}"""


def changed(seconds: float, look: Callable[..., Any], inputs: Sequence[Any] = (), after: Sequence[Any] = ()) -> Any:
    """A trigger for the tab that is being made: every so many seconds, if `look` returns something else than before.

    after: other events that update the same components; after one of them, the next look counts as changed. (A tick
    that updated the components itself would redraw all of them each time.)
    """
    seen = gr.State()
    timer = gr.Timer(seconds, active=False)  # until `tick_while_open` starts it
    timer.tick(look, list(inputs), seen, show_progress="hidden")
    if after:
        gr.on(list(after), lambda: None, None, seen, show_progress="hidden")
    return seen.change


def tick_while_open(tabs: gr.Tabs, restored: Any) -> None:
    """Let the timers of the open tab tick, and no others. restored: the event that opened the tab in the address."""
    own = [tab for tab in tabs.children if isinstance(tab, gr.Tab)]
    found = {each: tab.id for tab in own for each in timers_in(tab)}
    names = [tab.id for tab in own]
    start = START.replace("OWNERS", json.dumps(list(found.values())))
    script = RESTORED.replace("NAMES", json.dumps(names)).replace("START", start)
    restored.success(None, None, list(found), js=script)
    for tab in own:
        script = OPENED.replace("NAME", json.dumps(tab.id)).replace("START", start)
        tab.select(None, None, list(found), js=script)


def timers_in(block: Any) -> Iterator[gr.Timer]:
    """The timers below a block."""
    for child in getattr(block, "children", ()):
        if isinstance(child, gr.Timer):
            yield child
        yield from timers_in(child)
