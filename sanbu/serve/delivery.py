"""From prepared requests to HTTP responses: time limits, clients that leave, server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response
from sse_starlette import EventSourceResponse

from sanbu.serve import json_body
from sanbu.serve.chat import ChatCompletion
from sanbu.serve.completions import Completion
from sanbu.serve.errors import APIError
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.request_builder import Answers, collected, compact
from sanbu.serve.responses import ModelResponse

T = TypeVar("T")
NEVER = 1 << 24  # seconds


class ClientLeft(APIError):
    """The client has closed the connection; nobody reads the answer."""

    def __init__(self) -> None:
        super().__init__(499, "the client closed the connection")


async def prepare(request: Request, work: Callable[[], T], where: str = "preparation") -> T:
    """The result of work that takes long, off the event loop. Raises APIError when the time limit is reached.

    where: the threads that do it. Bodies are read by one thread, because the JSON parser stops all others meanwhile.
    """
    state = request.app.state
    try:
        async with asyncio.timeout(state.seconds):
            return await getattr(state, where).run(owner_of(request), work)
    except TimeoutError:
        raise timed_out() from None


def find_run(request: Request, body: Any) -> HostedRun:
    """The run that the body's `model` names. Stores the name, and with `prompts` the body, for the request log."""
    state = request.app.state
    request.state.model = body.model
    if state.prompts:
        request.state.asked = body.model_dump(exclude_none=True)
    return state.service.find(body.model)


def reserve(request: Request, tokens: int) -> None:
    """Set aside the tokens that a request may use, of the limit of its key. Raises APIError 429."""
    key = getattr(request.state, "key", None)
    if key is not None:
        request.app.state.service.keys.reserve(key, request.state.spending, tokens)


def owner_of(request: Request) -> str:
    """Who sends a request: the name of its key, else its address."""
    key = getattr(request.state, "key", None)
    address = request.client.host if request.client else ""
    return f"key {key.name}" if key is not None else address


async def respond(request: Request, body: Any, made: ChatCompletion | Completion | ModelResponse) -> Response:
    """Submit the request, then return one JSON response or an event stream."""
    made.generation.owner = owner_of(request)
    reserve(request, made.generation.most_tokens())
    pieces = made.generation.pieces(request.app.state.service.metrics)

    def count() -> None:
        request.state.tokens = made.generation.usage()["total_tokens"]

    if body.stream:
        return events(request, limit_time(request, pieces, made.stream(pieces), count))

    async def collect() -> Answers:
        try:
            return await collected(made.generation, pieces)
        finally:
            count()
            await pieces.aclose()  # type: ignore[attr-defined]

    answers = await run_until_disconnect(request, collect())
    return await prepare(request, lambda: json_body.response(made.response(answers)))


async def limit_time(
    request: Request, source: AsyncIterator[Any], stream: AsyncIterator[Any], end: Any = None, late: Any = None
) -> AsyncIterator[Any]:
    """A stream with a time limit; its source is closed when it ends or the client disconnects.

    late: what is sent when the limit is reached; None: the error as JSON.
    """
    try:
        async with asyncio.timeout(request.app.state.seconds):
            async for what in stream:
                yield what
    except TimeoutError:
        yield compact(timed_out().body()) if late is None else late
    finally:
        if end is not None:
            end()
        await source.aclose()  # type: ignore[attr-defined]


async def begun(stream: AsyncIterator[T]) -> AsyncIterator[T]:
    """The stream once its first item is there, so that what fails before it is an error response."""
    first = [await anext(stream)]

    async def rest() -> AsyncIterator[T]:
        try:
            for item in first:
                yield item
            async for item in stream:
                yield item
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    return rest()


def timed_out() -> APIError:
    """The error of a request that took too long."""
    return APIError(503, "request timed out", code="timeout")


def events(request: Request, stream: AsyncIterator[Any]) -> Response:
    """Server-sent events. stream: data strings, or (event name, data) pairs."""

    async def format_events() -> AsyncIterator[dict[str, str]]:
        try:
            async for what in stream:
                yield {"data": what} if isinstance(what, str) else {"event": what[0], "data": what[1]}
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    ping = request.app.state.ping or NEVER
    return EventSourceResponse(
        format_events(), sep="\n", ping=ping, send_timeout=60, headers={"X-Accel-Buffering": "no"}
    )


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of work, cancelled when the client disconnects or the time limit is reached."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_for_disconnect(request))
    try:
        await asyncio.wait({task, gone}, timeout=request.app.state.seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise timed_out() if not gone.done() else ClientLeft()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
