"""The tab and its choices in the address of the page, so that a reload, a bookmark or a link brings them back.

The browser writes them, with `history.replaceState`; the server reads them from the address of each request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

LONGEST = 2_000  # characters of a text in an address
WRITE = """(...values) => {
  const address = new URL(window.location.href);
  NAMES.forEach((name, place) => {
    const text = (value) => JSON.stringify([value ?? ""].flat());
    address.searchParams.delete(name);
    if (text(values[place]) === text(FIRST[name])) return;
    const chosen = [values[place]].flat(), kept = name in FIRST && !chosen.length ? [""] : chosen;
    for (const value of kept)
      if (value !== null && value !== undefined && (value !== "" || name in FIRST))
        address.searchParams.append(name, value);
  });
  if (address.href !== window.location.href) window.history.replaceState(window.history.state, "", address);
  return [];
}"""


def keep(filled: Any, choices: Mapping[str, Any]) -> None:
    """Write choices into the address when they change, and after a tab was filled, which may come before it is drawn.

    filled: the event that fills it. choices: components by their names in the address.
    """
    filled.success(None, list(choices.values()), None, js=writer(list(choices)))
    for name, component in choices.items():
        component.change(None, component, None, js=writer([name]))


def keep_widgets(opened: Any, choices: Mapping[str, Any]) -> None:
    """Give widgets the values in the address after an event, and write values that differ from the defaults into it.

    opened: the event after which they may be filled; until then the address stays as it was given. choices: widgets by
    their names in the address.
    """
    parts, first = list(choices.values()), {name: part.value for name, part in choices.items()}

    def read(request: gr.Request) -> Any:
        found = [value_in(part, every(request, name)) for name, part in choices.items()]
        return found if len(found) > 1 else found[0]

    key = json.dumps("/".join(choices))  # of these widgets, among those whose values have been read
    filled = opened.then(read, None, parts, show_progress="hidden")
    begin, write = f"(window.sanbuRead ??= {{}})[{key}] = true", writer(list(choices), first)
    filled.then(None, parts, None, js=f"(...values) => {{ {begin}; return ({write})(...values); }}")
    for name, part in choices.items():
        script = f"(value) => window.sanbuRead?.[{key}] ? ({writer([name], first)})(value) : []"
        part.change(None, part, None, js=script)


def value_in(part: Any, given: list[str]) -> Any:
    """The value of a widget that is given as text; no change where there is none, or one that is not allowed."""
    if not given:
        return gr.skip()
    if isinstance(part, (gr.Slider, gr.Number)):
        try:
            value = float(given[0])
        except ValueError:
            return gr.skip()
        low, high = part.minimum, part.maximum
        allowed = math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
        return (int(value) if value.is_integer() else value) if allowed else gr.skip()
    if isinstance(part, gr.Checkbox):
        return given[0] == "true"
    if isinstance(part, gr.Textbox):
        return given[0][:LONGEST]
    if isinstance(part, gr.CheckboxGroup) and given == [""]:
        return []
    known = {value for _, value in part.choices}
    listed = [value for value in given if value in known] or gr.skip()
    return listed if isinstance(part, gr.CheckboxGroup) or not isinstance(listed, list) else listed[0]


def writer(names: Sequence[str], first: Mapping[str, Any] | None = None) -> str:
    """The script that writes these choices, except those with their first values."""
    return WRITE.replace("NAMES", json.dumps(names)).replace("FIRST", json.dumps(first or {}))


def keep_tab(tab: gr.Tab, name: str) -> None:
    """Write a tab into the address when it is selected, but not before `restore_tab` has read the address."""
    tab.select(None, None, None, js=f"() => window.sanbuTabRestored ? ({writer(['tab'])})({json.dumps(name)}) : []")


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
