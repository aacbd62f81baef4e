"""From the thread that computes to the one that answers: events become pieces of text, several answers in one stream.

Whoever stops listening cancels: the generators here end their requests when they are closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sanbu.codecs.text import Reader
from sanbu.codecs.tokenizer import Tokenizer
from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import Served
from sanbu.serve.metrics import Metrics
from sanbu.serve.request import Event, Finish, Request
from sanbu.serve.single_lane import Job

Ended = tuple[int, Finish]


@dataclass(frozen=True)
class Word:
    """A token that was said, and how likely it and others were under the model."""

    token: int
    spelling: bytes
    logprob: float
    top: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """What answer `index` says next, with the tokens that are now said whole; finish with the last piece."""

    index: int
    text: str
    words: Sequence[Word] = ()
    finish: Finish | None = None


@dataclass
class Answer:
    """One answer on its way to text. Its tokens are held back until all their bytes are text that is certain."""

    index: int
    tokenizer: Tokenizer
    stop: Sequence[str]
    reader: Reader = field(init=False)
    held: list[tuple[int, Word]] = field(init=False, default_factory=list)  # where its bytes end
    tokens: int = field(init=False, default=0)
    spelt: int = field(init=False, default=0)
    said: int = field(init=False, default=0)
    finish: Finish | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.reader = Reader(self.tokenizer, self.stop)

    def hear(self, event: Event) -> Piece:
        """The next piece; its text may be empty."""
        if event.token is None:
            self.finish = event.finish
            return self._piece(self.reader.feed([], final=True), everything=not self.reader.stopped)
        self.tokens += 1
        pieces = self.tokenizer.pieces
        spelling = pieces[event.token] if event.token < len(pieces) else b""
        self.spelt += len(spelling)
        self.held.append((self.spelt, Word(event.token, spelling, event.logprob, event.top)))
        text = self.reader.feed([event.token])
        if self.reader.stopped:
            self.finish = "stop"
        return self._piece(text)

    def _piece(self, text: str, everything: bool = False) -> Piece:
        self.said += len(text.encode("utf-8", "replace"))
        count = len(self.held) if everything else sum(end <= self.said for end, _ in self.held)
        words = [word for _, word in self.held[:count]]
        del self.held[:count]
        return Piece(self.index, text, words, self.finish)


class Line:
    """A queue from the computing thread into this event loop."""

    def __init__(self) -> None:
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def put(self, what: Any) -> None:
        """May be called from any thread. Raises RuntimeError when nobody listens any more: the loop is closed."""
        self.loop.call_soon_threadsafe(self.queue.put_nowait, what)

    def sender(self, index: int) -> Callable[[Any], None]:
        """A function that puts what it is given beside an index."""
        return lambda what: self.put((index, what))


async def together(
    served: Served, requests: Sequence[Request], line: Line, answers: Sequence[Answer], metrics: Metrics
) -> AsyncIterator[Piece]:
    """The pieces of requests that were submitted, as they come; closing it cancels what is not finished."""
    begun = last = time.perf_counter()
    open_answers = len(requests)
    try:
        while open_answers:
            index, event = await line.queue.get()
            answer = answers[index]
            if answer.finish is not None:
                continue  # it met a stop text, and this is what was on its way
            now = time.perf_counter()
            if event.token is not None:
                (metrics.first if answer.tokens == 0 else metrics.between).observe(
                    now - (begun if answer.tokens == 0 else last)
                )
                last = now
            piece = answer.hear(event)
            if piece.finish is not None:
                open_answers -= 1
                requests[index].cancel()
                if piece.finish == "error":
                    raise APIError(500, "this answer could not be finished; the server's log says why")
                metrics.ended.labels(piece.finish).inc()
            yield piece
    finally:
        for request in requests:
            request.cancel()
        metrics.whole.observe(time.perf_counter() - begun)
        metrics.prompt.inc(sum(len(request.prompt) for request in requests))
        metrics.generated.inc(sum(answer.tokens for answer in answers))


async def steps(
    job_of: Callable[[Callable[[Any], None], Callable[[Finish], None]], Job], served: Served
) -> AsyncIterator[Any]:
    """What each step of a job yields; closing it cancels the job."""
    line = Line()
    job = job_of(line.sender(0), line.sender(1))
    served.solo.submit(job)
    try:
        while True:
            end, what = await line.queue.get()
            if end:
                if what == "error":
                    raise APIError(500, "this could not be drawn; the server's log says why")
                return
            yield what
    finally:
        job.cancel()
