"""From the worker thread to the event loop: engine events become pieces of text, several answers in one stream.

Closing a generator of this module cancels its requests.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sanbu.codecs.text import Reader
from sanbu.codecs.tokenizer import Tokenizer
from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.metrics import Metrics
from sanbu.serve.request import Event, Finish, Request
from sanbu.serve.single_lane import Job


@dataclass(frozen=True)
class GeneratedToken:
    """A generated token, its bytes, its log-probability and the top log-probabilities."""

    token: int
    spelling: bytes
    logprob: float
    top: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """New text of answer `index` and the tokens that it completes; finish is set on the last piece."""

    index: int
    text: str
    tokens: Sequence[GeneratedToken] = ()
    finish: Finish | None = None


@dataclass
class Answer:
    """Decodes one answer. Tokens are held back until their bytes form whole characters outside any stop text.

    ends: the end token is told too, as the last of the tokens.
    """

    index: int
    tokenizer: Tokenizer
    stop: Sequence[str]
    ends: bool = False
    reader: Reader = field(init=False)
    held: list[tuple[int, GeneratedToken]] = field(
        init=False, default_factory=list
    )  # (end offset in characters, token)
    tokens: int = field(init=False, default=0)
    decoder: codecs.IncrementalDecoder = field(init=False)
    decoded: int = field(init=False, default=0)  # characters of all tokens
    told: int = field(init=False, default=0)  # characters of the text that was returned
    finish: Finish | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.reader = Reader(self.tokenizer, self.stop)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def receive(self, event: Event) -> Piece:
        """Decode one event into a piece; its text may be empty."""
        if event.token is None:
            self.finish = event.finish
            if self.ends and event.last is not None and event.last.token is not None:
                self.held.append((0, GeneratedToken(event.last.token, b"", event.last.logprob, event.last.top)))
            return self._piece(self.reader.feed([], final=True), everything=not self.reader.stopped)
        self.tokens += 1
        pieces = self.tokenizer.pieces
        spelling = pieces[event.token] if event.token < len(pieces) else b""
        self.decoded += len(self.decoder.decode(spelling))
        begun = len(self.decoder.getstate()[0]) > 0  # the token ends within a character
        self.held.append((self.decoded + begun, GeneratedToken(event.token, spelling, event.logprob, event.top)))
        text = self.reader.feed([event.token])
        if self.reader.stopped:
            self.finish = "stop"
        return self._piece(text)

    def _piece(self, text: str, everything: bool = False) -> Piece:
        self.told += len(text)
        count = len(self.held) if everything else sum(end <= self.told for end, _ in self.held)
        tokens = [token for _, token in self.held[:count]]
        del self.held[:count]
        return Piece(self.index, text, tokens, self.finish)


class EventQueue:
    """A queue from the worker thread into this event loop."""

    def __init__(self) -> None:
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def put(self, what: Any) -> None:
        """Add an item, from any thread. Raises RuntimeError when the event loop is closed."""
        self.loop.call_soon_threadsafe(self.queue.put_nowait, what)

    def sender(self, index: int) -> Callable[[Any], None]:
        """A function that puts (index, its argument)."""
        return lambda what: self.put((index, what))


async def stream_pieces(
    served: HostedRun, requests: Sequence[Request], events: EventQueue, answers: Sequence[Answer], metrics: Metrics
) -> AsyncIterator[Piece]:
    """The pieces of submitted requests, in order of arrival; closing it cancels unfinished requests."""
    begun = last = time.perf_counter()
    open_answers = len(requests)
    try:
        while open_answers:
            index, event = await events.queue.get()
            answer = answers[index]
            if answer.finish is not None:
                continue  # finished by a stop text; this event was already queued
            now = time.perf_counter()
            if event.token is not None:
                (metrics.first_token if answer.tokens == 0 else metrics.between).observe(
                    now - (begun if answer.tokens == 0 else last)
                )
                last = now
            piece = answer.receive(event)
            if piece.finish is not None:
                open_answers -= 1
                requests[index].cancel()
                if event.reason:
                    raise APIError(400, event.reason)
                if piece.finish == "error":
                    raise APIError(500, "generation failed; see the server log")
                metrics.ended.labels(piece.finish).inc()
            yield piece
    finally:
        for request in requests:
            request.cancel()
        metrics.ended.labels("abort").inc(sum(answer.finish is None for answer in answers))
        metrics.latency.observe(time.perf_counter() - begun)
        metrics.prompt.inc(sum(len(request.prompt) for request in requests))
        metrics.generated.inc(sum(answer.tokens for answer in answers))


async def stream_job(
    job_of: Callable[[Callable[[Any], None], Callable[[Finish], None]], Job], served: HostedRun
) -> AsyncIterator[Any]:
    """The results of a job's steps; closing it cancels the job."""
    events = EventQueue()
    job = job_of(events.sender(0), events.sender(1))
    served.single_lane.submit(job)
    try:
        while True:
            end, what = await events.queue.get()
            if end:
                if what == "error":
                    raise APIError(500, "sampling failed; see the server log")
                return
            yield what
    finally:
        job.cancel()
