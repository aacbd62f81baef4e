"""Looking for changes: while a tab is open, the browser asks whether there are any, and only then updates components.

The question is a plain request, answered with a few characters. An event of the UI library for each look would cost
the browser 100 ms of its core.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import gradio as gr
from fastapi.responses import PlainTextResponse, Response

FRESH = 0.5  # seconds in which the pages share an answer
PATH = "/pulse/{number}"
OPEN = """(name) => {
  const pulse = window.sanbuPulse ??= {seen: {}, asked: {}, lost: false};
  pulse.open = name;
  const look = async (number) => {
    const button = document.getElementById(`pulse-${number}`);
    let answer, text;
    pulse.asked[number] = Infinity;
    try {
      answer = await fetch(`pulse/${number}`);
      text = await answer.text();
      pulse.lost = false;
    } catch {  // the library says that the server is gone, and reloads the page later, once an event of its own fails
      if (!pulse.lost) button?.click();
      pulse.lost = true;
      return;
    } finally { pulse.asked[number] = performance.now(); }
    if (!answer.ok || !button || pulse.seen[number] === text) return;
    const early = !(number in pulse.seen);  // what fills the tab when the page opens may be on its way
    pulse.seen[number] = early ? "" : text;
    if (!early) button.click();
  };
  pulse.timer ??= setInterval(() => {
    const due = ([number, seconds]) => performance.now() - (pulse.asked[number] ?? -1e9) > 1000 * seconds;
    if (!document.hidden) (OWNERS[pulse.open] ?? []).filter(due).forEach(([number]) => look(number));
  }, 250);
}"""
SELECTED = "() => { (OPEN)(window.sanbuTab = NAME); return []; }"
RESTORED = """() => {
  const names = NAMES, name = window.sanbuTab ?? new URLSearchParams(location.search).get("tab");
  (OPEN)(names.includes(name) ? name : names[0]);
  return [];
}"""


class Pulses:
    """What the tabs of a page look at. Each look is the same for all pages."""

    def __init__(self) -> None:
        self.looks: list[Callable[[], Any]] = []
        self.made: list[tuple[gr.Button, float]] = []
        self.said: dict[int, tuple[float, str]] = {}  # the last answer of each look, and when it was found
        self.locks: list[asyncio.Lock] = []

    def changed(self, seconds: float, look: Callable[[], Any]) -> Any:
        """A trigger for the tab that is being made: `look`, every so many seconds, says something else than before.

        It also fires once after the tab is first opened.
        """
        button = gr.Button(visible="hidden", elem_id=f"pulse-{len(self.looks)}")
        self.looks.append(look)
        self.locks.append(asyncio.Lock())
        self.made.append((button, seconds))
        return button.click

    def connect(self, tabs: gr.Tabs, restored: Any) -> None:
        """Look at what the open tab shows. restored: the event that opened the tab in the address."""
        own = [tab for tab in tabs.children if isinstance(tab, gr.Tab)]
        owners: dict[str, list[tuple[int, float]]] = {}
        for number, (button, seconds) in enumerate(self.made):
            owners.setdefault(tab_of(button), []).append((number, seconds))
        opened = OPEN.replace("OWNERS", json.dumps(owners))
        names = json.dumps([tab.id for tab in own])
        restored.success(None, None, None, js=RESTORED.replace("NAMES", names).replace("OPEN", opened))
        for tab in own:
            tab.select(None, None, None, js=SELECTED.replace("NAME", json.dumps(tab.id)).replace("OPEN", opened))

    async def answer(self, number: int) -> Response:
        """What a look says, as a few characters: equal as long as nothing has changed."""
        if not 0 <= number < len(self.looks):
            return Response(status_code=404)
        async with self.locks[number]:
            since, text = self.said.get(number, (-FRESH, ""))
            if time.monotonic() - since > FRESH:
                found = await asyncio.to_thread(self.looks[number])
                text = hashlib.sha256(repr(found).encode()).hexdigest()[:16]
                self.said[number] = time.monotonic(), text
        return PlainTextResponse(text)


def tab_of(block: Any) -> str:
    """The name of the tab that holds a block."""
    while not isinstance(block, gr.Tab):
        block = block.parent
    return str(block.id)
