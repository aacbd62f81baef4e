"""Work before the engine (tokenizing, chat templates, schemas) in a few threads, so that the event loop stays free.

Owners, which are API keys or addresses, take turns: one that sends much waits for itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sanbu.serve.request import Busy

T = TypeVar("T")


class Preparation:
    """Jobs of an event loop that run in threads. threads: jobs at once. queue: waiting jobs per owner."""

    def __init__(self, threads: int = 2, queue: int = 64) -> None:
        self.pool = ThreadPoolExecutor(threads, "sanbu-prepare")
        self.free, self.queue = threads, queue
        self.waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def run(self, owner: str, work: Callable[[], T]) -> T:
        """The result of work, once it is the owner's turn. Raises Busy when too many of its jobs wait."""
        await self._turn(owner)
        loop = asyncio.get_running_loop()
        job = self.pool.submit(work)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._next))
        return await asyncio.wrap_future(job)

    async def _turn(self, owner: str) -> None:
        if self.free:
            self.free -= 1
            return
        mine = self.waiting.setdefault(owner, deque())
        if len(mine) >= self.queue:
            raise Busy(f"the queue is full: {len(mine)} of your requests wait to be read; retry later")
        turn = asyncio.get_running_loop().create_future()
        mine.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn came while the request was given up
                self._next()
            raise

    def _next(self) -> None:
        """Pass the thread that has become free to the owner that has waited longest for a turn."""
        while self.waiting:
            owner, mine = self.waiting.popitem(last=False)
            while mine and mine[0].done():  # given up
                mine.popleft()
            if mine:
                turn = mine.popleft()
                if mine:
                    self.waiting[owner] = mine
                turn.set_result(None)
                return
        self.free += 1
