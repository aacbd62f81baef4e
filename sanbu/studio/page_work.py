"""Work that a page has started and may stop, or replace by newer work.

The library can cancel an event too, but not before it has heard the event's id from the server, and only after other
handlers of the same click are done; then it cancels what was started after the click.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

import gradio as gr

Item = TypeVar("Item")


class PageWork:
    """The newest work of each page."""

    def __init__(self) -> None:
        self.newest: dict[str, object] = {}

    @contextmanager
    def begin(self, request: gr.Request) -> Iterator[Callable[[], bool]]:
        """New work of a page. Gives a function that says whether it is still wanted."""
        page, mine = str(request.session_hash), object()
        self.newest[page] = mine
        try:
            yield lambda: self.newest.get(page) is mine
        finally:
            if self.newest.get(page) is mine:
                del self.newest[page]

    async def while_wanted(self, request: gr.Request, source: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
        """What new work of a page yields, until it is not wanted any more; then the source is closed."""
        async with aclosing(source):
            with self.begin(request) as wanted:
                async for item in source:
                    if not wanted():
                        break
                    yield item

    def stop(self, request: gr.Request) -> None:
        """The work of a page is not wanted any more."""
        self.newest.pop(str(request.session_hash), None)
