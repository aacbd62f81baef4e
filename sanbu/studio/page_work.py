"""Work that a page has started and may stop, or replace by newer work.

The library can cancel an event too, but not before it has heard the event's id from the server, and only after other
handlers of the same click are done; then it cancels what was started after the click.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

import gradio as gr

Item = TypeVar("Item")


class PageWork:
    """The newest work of each page, kept as the callback that ends it."""

    def __init__(self) -> None:
        self.newest: dict[str, Callable[[], None]] = {}

    @contextmanager
    def begin(self, request: gr.Request, ended: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
        """New work of a page, in place of what it does now. Gives a function that says whether it is still wanted.

        ended: called once it is stopped or replaced, from any thread.
        """

        def mine() -> None:
            ended()

        self.stop(request)
        page = str(request.session_hash)
        self.newest[page] = mine
        try:
            yield lambda: self.newest.get(page) is mine
        finally:
            if self.newest.get(page) is mine:
                del self.newest[page]

    async def while_wanted(self, request: gr.Request, source: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
        """What new work of a page yields, until it is not wanted any more; then the source is cancelled at once."""
        loop, unwanted = asyncio.get_running_loop(), asyncio.Event()
        async with aclosing(source):
            with self.begin(request, lambda: loop.call_soon_threadsafe(unwanted.set)):
                while (item := await unless(unwanted, anext(source, None))) is not None:
                    yield item

    def stop(self, request: gr.Request) -> None:
        """The work of a page is not wanted any more."""
        if ended := self.newest.pop(str(request.session_hash), None):
            ended()


async def unless(event: asyncio.Event, what: Awaitable[Item]) -> Item | None:
    """The result of `what`, which is cancelled when the event is set before it; then None."""
    tasks = asyncio.ensure_future(what), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return None if event.is_set() else tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
