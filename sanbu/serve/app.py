"""The HTTP API in OpenAI's shape: each endpoint a few lines over the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus

from sanbu.config import kind_of
from sanbu.serve import schemas
from sanbu.serve.chat import Chat
from sanbu.serve.completions import Completion
from sanbu.serve.embeddings import embedded
from sanbu.serve.errors import APIError, install
from sanbu.serve.hosted_run import Served
from sanbu.serve.images import Drawn
from sanbu.serve.middleware import Gate
from sanbu.serve.request_builder import compact
from sanbu.serve.responses import Response as Answered
from sanbu.serve.service import Service
from sanbu.serve.tools import conversation

T = TypeVar("T")


def application(
    service: Service,
    largest: int = 4 << 20,
    seconds: float = 600,
    origins: Sequence[str] = (),
    local: bool = True,
    prompts: bool = False,
) -> FastAPI:
    """The API of a service. largest: bytes per body. seconds: per request. prompts: also write prompts to the log."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.draining = True
        service.worker.stop()
        await asyncio.to_thread(service.worker.thread.join, 30)

    # streams that have begun are finished; uvicorn ends those that take too long
    AppStatus.disable_automatic_graceful_drain()
    app = FastAPI(
        title="Sanbu", version=version("sanbu"), lifespan=life, docs_url=None, redoc_url=None
    )  # both want another machine
    app.state.service, app.state.seconds, app.state.prompts = service, seconds, prompts
    install(app)
    app.include_router(routes, prefix="/v1")
    app.include_router(routes, include_in_schema=False)  # for clients that are given the address without /v1
    app.include_router(about)
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    app.add_middleware(Gate, service=service, largest=largest, origins=origins, local=local)
    return app


routes, about = APIRouter(), APIRouter()
WRONG: dict[int | str, dict[str, Any]] = {
    code: {"description": text}
    for code, text in ((400, "what is wrong, and in which field"), (404, "no such model"), (429, "try again later"))
}


@routes.post("/chat/completions", responses=WRONG)
async def chat(body: schemas.ChatBody, request: Request) -> Response:
    """Answer a conversation."""
    made = Chat(found(request, body), body)
    request.state.left_out = made.left_out
    return await answered(request, body, made)


@routes.post("/completions", responses=WRONG)
async def completions(body: schemas.CompletionBody, request: Request) -> Response:
    """Go on from a text."""
    return await answered(request, body, Completion(found(request, body), body))


@routes.post("/responses", responses=WRONG)
async def responses(body: schemas.ResponseBody, request: Request) -> Response:
    """Answer, in the newer shape."""
    return await answered(request, body, Answered(found(request, body), body))


@routes.post("/images/generations", responses=WRONG)
async def images(body: schemas.ImageBody, request: Request) -> Response:
    """Draw pictures of a label."""
    service: Service = request.app.state.service
    drawing = [one for one in service.served.values() if not one.writes]
    if body.model is None and not drawing:
        raise APIError(404, "no run that draws pictures is served", "model", "model_not_found")
    made = Drawn(found(request, body) if body.model is not None else drawing[0], body)
    drafts = made.drafts()
    if body.stream:
        return events(limited(request, drafts, made.stream(drafts)))
    return JSONResponse(await until_gone(request, made.whole(drafts)))


@routes.post("/embeddings", responses=WRONG)
async def embeddings(body: schemas.EmbeddingBody, request: Request) -> Response:
    """A vector for each text."""
    return JSONResponse(await until_gone(request, embedded(found(request, body), body)))


@routes.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """What is served."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [described(one) for one in service.served.values()]}


@routes.get("/models/{name}", responses={404: WRONG[404]})
async def model(name: str, request: Request) -> dict[str, Any]:
    """One model."""
    service: Service = request.app.state.service
    return described(service.find(name))


@about.post("/tokenize", responses=WRONG)
async def tokenize(body: schemas.TokenizeBody, request: Request) -> dict[str, Any]:
    """The ids of a text, or of a conversation as the model sees it."""
    served = found(request, body)
    if not served.writes:
        raise APIError(400, f"{served.name} does not read text", "model")
    if (body.prompt is None) == (body.messages is None):
        raise APIError(400, "give either prompt or messages", "prompt")
    if body.prompt is not None:
        ids = served.begin(body.prompt)
    else:
        ids = served.ask(conversation(body.messages or ()))
    return {"tokens": ids, "count": len(ids), "max_model_len": served.context}


@about.get("/health")
async def health(request: Request) -> Response:
    """200 while serving, 503 while shutting down."""
    service: Service = request.app.state.service
    up = service.worker.thread.is_alive() and not service.draining
    return JSONResponse({"status": "ok" if up else "shutting down"}, 200 if up else 503)


@about.get("/metrics")
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def found(request: Request, body: Any) -> Served:
    """The run a body names; noted for the log."""
    state = request.app.state
    request.state.model = body.model
    if state.prompts:
        request.state.asked = body.model_dump(exclude_none=True)
    return state.service.find(body.model)


def described(served: Served) -> dict[str, Any]:
    """A model as the list shows it."""
    kind = kind_of(served.run.recipe.strategy)
    more = {"max_model_len": served.context} if served.writes else {}
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "sanbu",
        "recipe": served.run.recipe.name,
        "strategy": kind,
        **more,
    }


async def answered(request: Request, body: Any, made: Chat | Completion | Answered) -> Response:
    """Submit, then answer whole or as events."""
    pieces = made.asked.pieces(request.app.state.service.metrics)

    def count() -> None:
        request.state.tokens = made.asked.usage()["total_tokens"]

    if body.stream:
        return events(limited(request, pieces, made.stream(pieces), count))

    async def whole() -> dict[str, Any]:
        try:
            return await made.whole(pieces)
        finally:
            count()
            await pieces.aclose()  # type: ignore[attr-defined]

    return JSONResponse(await until_gone(request, whole()))


async def limited(
    request: Request, source: AsyncIterator[Any], stream: AsyncIterator[Any], end: Any = None
) -> AsyncIterator[Any]:
    """A stream with a time limit; its source is closed when it ends or the client disconnects."""
    try:
        async with asyncio.timeout(request.app.state.seconds):
            async for what in stream:
                yield what
    except TimeoutError:
        yield compact(APIError(503, "request timed out", code="timeout").body())
    finally:
        if end is not None:
            end()
        await source.aclose()  # type: ignore[attr-defined]


def events(stream: AsyncIterator[Any]) -> Response:
    """Server-sent events: texts alone, or with the event's name."""

    async def named() -> AsyncIterator[dict[str, str]]:
        try:
            async for what in stream:
                yield {"data": what} if isinstance(what, str) else {"event": what[0], "data": what[1]}
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    return EventSourceResponse(named(), sep="\n", ping=15, send_timeout=60, headers={"X-Accel-Buffering": "no"})


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Work that is cancelled when the client disconnects or the time limit passes."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(left(request))
    try:
        await asyncio.wait({task, gone}, timeout=request.app.state.seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise (
            APIError(503, "request timed out", code="timeout")
            if not gone.done()
            else APIError(400, "the client closed the connection")
        )
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def left(request: Request) -> None:
    """Returns when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
