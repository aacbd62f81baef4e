"""The OpenAI-compatible HTTP API: a few lines per endpoint over the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, cast

from fastapi import APIRouter, FastAPI, File, Form, Request, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from sse_starlette.sse import AppStatus

from sanbu.config import kind_of
from sanbu.serve import json_body, schemas, tokens
from sanbu.serve.body_route import BodyRoute
from sanbu.serve.chat import ChatCompletion
from sanbu.serve.completions import Completion
from sanbu.serve.delivery import (
    begun,
    events,
    find_run,
    limit_time,
    owner_of,
    prepare,
    reserve,
    respond,
    run_until_disconnect,
)
from sanbu.serve.embeddings import Embeddings
from sanbu.serve.endpoints import Endpoints
from sanbu.serve.errors import ERRORS, APIError, install_handlers
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.hosts import Hosts
from sanbu.serve.images import ImageGeneration
from sanbu.serve.middleware import Gate
from sanbu.serve.preparation import Preparation
from sanbu.serve.responses import ModelResponse
from sanbu.serve.service import Service
from sanbu.serve.speech import SpeechBody, SpeechGeneration, Transcription


def application(
    service: Service,
    largest: int = 4 << 20,
    seconds: float = 600,
    origins: Sequence[str] = (),
    local: bool = True,
    prompts: bool = False,
    names: Sequence[str] = (),
    ping: int = 15,
) -> FastAPI:
    """The API of a service. largest: bytes per body. seconds: per request. prompts: also write prompts to the log.

    local: only requests to this machine, or to names. ping: seconds between comments in a stream; 0 = none.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        opening = asyncio.create_task(open_expected(service))
        yield
        opening.cancel()
        service.draining = True
        service.worker.stop()
        await asyncio.to_thread(service.worker.thread.join, 30)

    # running streams are finished; uvicorn ends those that exceed its shutdown timeout
    AppStatus.disable_automatic_graceful_drain()
    pages = {"docs_url": None, "redoc_url": None}  # both would load scripts from a CDN
    app = FastAPI(title="Sanbu", version=version("sanbu"), lifespan=lifespan, **cast(Any, pages))
    app.state.service, app.state.seconds, app.state.prompts = service, seconds, prompts
    app.state.reading, app.state.preparation, app.state.ping = Preparation(1), Preparation(2), ping
    install_handlers(app)
    included = (("/v1", routes), ("", routes), ("", about), ("", tokens.routes))
    for prefix, router in included:  # without /v1 for clients that are given the address without it
        app.include_router(router, prefix=prefix, include_in_schema=bool(prefix) or router is not routes)
    endpoints = Endpoints(included)
    app.add_middleware(
        Gate, service=service, endpoints=endpoints, largest=largest, origins=origins, hosts=Hosts(local, names)
    )
    if origins:
        allow_origins(app, origins)
    return app


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins read every answer: outside the gate, so that they can read its errors too."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "x-left-out", "retry-after"],
    )


async def open_expected(service: Service) -> None:
    """Serve the expected runs, each as soon as it is finished."""
    while service.missing():
        await asyncio.to_thread(service.open_finished)
        await asyncio.sleep(1)


routes, about = APIRouter(route_class=BodyRoute), APIRouter()


@routes.post("/chat/completions", responses=ERRORS)
async def chat(body: schemas.ChatBody, request: Request) -> Response:
    """Create a chat completion."""
    served = find_run(request, body)
    made = await prepare(request, lambda: ChatCompletion(served, body))
    request.state.left_out = made.left_out
    return await respond(request, body, made)


@routes.post("/completions", responses=ERRORS)
async def completions(body: schemas.CompletionBody, request: Request) -> Response:
    """Create a text completion."""
    served = find_run(request, body)
    return await respond(request, body, await prepare(request, lambda: Completion(served, body)))


@routes.post("/responses", responses=ERRORS)
async def responses(body: schemas.ResponseBody, request: Request) -> Response:
    """Create a response (Responses API)."""
    served = find_run(request, body)
    made = await prepare(request, lambda: ModelResponse(served, body))
    request.state.left_out = made.left_out
    return await respond(request, body, made)


@routes.post("/images/generations", responses=ERRORS)
async def images(body: schemas.ImageBody, request: Request) -> Response:
    """Generate images of a class label."""
    service: Service = request.app.state.service
    drawing = service.names(writes=False)
    if body.model is None and not drawing:
        raise APIError(404, "no image run is served", "model", "model_not_found")
    served = find_run(request, body) if body.model is not None else service.find(drawing[0])
    made = await prepare(request, lambda: ImageGeneration(served, body))
    drafts = made.drafts(owner_of(request))
    if body.stream:
        return events(request, limit_time(request, drafts, made.stream(drafts)))
    drawn = await run_until_disconnect(request, made.last(drafts))
    return await prepare(request, lambda: json_body.response(made.result(drawn)))


@routes.post("/audio/speech", responses=ERRORS)
async def speech(body: SpeechBody, request: Request) -> Response:
    """Speak a text: the bytes of a sound file, sent while they are made."""
    if body.instructions:
        raise APIError(400, "instructions: runs of speech take none; set voice and speed", "instructions")
    served = find_run(request, body) if body.model is not None else only_sounding(request, "voices")
    made = await prepare(request, lambda: SpeechGeneration(served, body))
    pieces = made.pieces(owner_of(request))
    if body.stream_format == "sse":
        return events(request, limit_time(request, pieces, made.stream(pieces)))
    sound = await begun(limit_time(request, pieces, made.sound(pieces), late=b""))
    return StreamingResponse(sound, media_type=made.media)


@routes.post("/audio/transcriptions", responses=ERRORS)
async def transcriptions(
    request: Request,
    file: Annotated[UploadFile, File()],
    model: Annotated[str, Form()] = "",
    response_format: Annotated[str, Form()] = "json",
) -> Response:
    """The text of a sound file."""
    service: Service = request.app.state.service
    request.state.model = model
    served = service.find(model) if model else only_sounding(request, "sound")
    content = await file.read()
    made = await prepare(request, lambda: Transcription(served, content, file.filename or "", response_format))
    found = await run_until_disconnect(request, made.result(made.texts(owner_of(request))))
    return PlainTextResponse(found) if isinstance(found, str) else JSONResponse(found)


def only_sounding(request: Request, ability: str) -> HostedRun:
    """The first run that can speak or recognise. Raises APIError where there is none."""
    service: Service = request.app.state.service
    names = service.sounding(ability)
    if not names:
        raise APIError(404, "no run of speech is served", "model", "model_not_found")
    return service.find(names[0])


@routes.post("/embeddings", responses=ERRORS)
async def embeddings(body: schemas.EmbeddingBody, request: Request) -> Response:
    """Create one embedding vector per input."""
    served = find_run(request, body)
    made = await prepare(request, lambda: Embeddings(served, body))
    reserve(request, made.tokens)
    vectors = await run_until_disconnect(request, made.vectors(owner_of(request)))
    request.state.tokens = made.tokens
    return await prepare(request, lambda: json_body.response(made.result(vectors)))


@routes.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """List the served models."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [describe(one) for one in list(service.runs.values())]}


@routes.get("/models/{name}", responses={404: ERRORS[404]})
async def model(name: str, request: Request) -> dict[str, Any]:
    """Describe one model."""
    service: Service = request.app.state.service
    return describe(service.find(name))


@about.get("/health")
async def health(request: Request) -> Response:
    """200 while serving, 503 while shutting down."""
    service: Service = request.app.state.service
    up = service.worker.thread.is_alive() and not (service.draining or service.leaving)
    return JSONResponse({"status": "ok" if up else "shutting down"}, 200 if up else 503)


@about.get("/metrics")
async def metrics(request: Request) -> Response:
    """Metrics in the Prometheus format."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def describe(served: HostedRun) -> dict[str, Any]:
    """The entry of a model in the list of models."""
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
