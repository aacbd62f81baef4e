"""Checks before every request (host, origin, size, API key), and one log line after it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanbu.serve.endpoints import Endpoints
from sanbu.serve.errors import APIError, api_error
from sanbu.serve.hosts import Hosts
from sanbu.serve.service import Service

log = logging.getLogger("sanbu.serve.requests")
PROTECTED = (
    "/v1/",
    "/chat/",
    "/completions",
    "/models",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/metrics",
    "/embeddings",
    "/images/",
    "/audio/",
    "/responses",
)
BODY = 60.0  # seconds in which some part of a body has to arrive


def split(given: str, name: str, before: str = "") -> SplitResult:
    """The parts of an address in a header. Raises APIError."""
    try:
        return urlsplit(before + given)
    except ValueError:
        raise APIError(400, f"{name}: given {given[:80]!r}, which is not an address") from None


class TooLarge(Exception):
    """The request body exceeds the limit."""


class Gate:
    """The outermost layer. largest: bytes per body. origins: allowed CORS origins. hosts: the names of this server.

    Without keys, requests to any other name are refused: a page of another site can give its own name the address of
    this machine (DNS rebinding), and would then speak for its reader.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        endpoints: Endpoints,
        largest: int,
        origins: Sequence[str] = (),
        hosts: Hosts | None = None,
    ) -> None:
        self.endpoints, self.hosts = endpoints, hosts or Hosts()
        self.app, self.service, self.largest, self.origins = app, service, largest, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, count its bytes, log it. Long because its closures share the count and the status."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, begun = Headers(scope=scope), time.perf_counter()
        given = headers.get("x-request-id", "")
        number = given if re.fullmatch(r"[\w.-]{1,128}", given) else f"req_{uuid.uuid4().hex}"
        state: dict[str, Any] = scope.setdefault("state", {})
        state["id"], status, sent, taken, more = number, 0, False, 0, True

        async def read() -> Message:
            nonlocal taken, more
            try:
                async with asyncio.timeout(BODY if more else None):
                    message = await receive()
            except TimeoutError:
                raise APIError(408, f"no part of the body arrived within {BODY:g} s") from None
            taken += len(message.get("body", b""))
            if taken > self.largest:
                raise TooLarge
            more = message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if taken > self.largest and not sent:
                raise TooLarge  # replaces the inner layers' response to the truncated body
            if message["type"] == "http.response.start":
                status, sent = message["status"], True
                heads = MutableHeaders(scope=message)
                heads["x-request-id"] = number
                if state.get("left_out"):
                    heads["x-left-out"] = state["left_out"]
            await send(message)

        inner: Any = scope
        try:
            self._admit(scope, headers, state)
            inner = self.endpoints.resolve(scope)
            await self.app(inner, read, answer)
        except Exception as error:
            wrong = self._too_large() if isinstance(error, TooLarge) else api_error(error)
            taken = 0
            if wrong.status == 500:
                log.exception("request %s failed", number)
            if not sent:
                await wrong.response()(scope, receive, answer)
        finally:
            scope["route"] = inner.get("route")
            self._log(scope, state, status, time.perf_counter() - begun)

    def _admit(self, scope: Scope, headers: Headers, state: dict[str, Any]) -> None:
        """Raise APIError for a foreign origin or host, a body too large, a wrong key, or while shutting down."""
        path = scope["path"]
        host = split(headers.get("host", ""), "Host", "//").hostname or ""
        if not self.service.keys.required and not self.hosts.allow(host):
            raise APIError(403, f"Host: given {host[:80]!r}, allowed: {self.hosts}; add names with --name")
        origin = headers.get("origin")
        if origin and origin not in self.origins and split(origin, "Origin").netloc != headers.get("host"):
            raise APIError(403, "this origin is not allowed; start the server with --origin to allow it")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.largest:
            raise self._too_large()
        if self.service.draining and path.startswith(PROTECTED):
            raise APIError(503, "the server is shutting down", wait=2)
        if path.startswith(PROTECTED) and scope["method"] != "OPTIONS":
            key = self.service.keys.authenticate(headers.get("authorization", ""))
            if key is not None:
                state["key"], state["spending"] = key, self.service.keys.admit(key)

    def _too_large(self) -> APIError:
        return APIError(413, f"the request body is larger than {self.largest:,} bytes")

    def _log(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        """Log one line of JSON, with the request body only if --log-prompts is set, and update the metrics."""
        key, tokens = state.get("key"), state.get("tokens", 0)
        if key is not None:
            state["spending"].settle(tokens)
            self.service.metrics.used.labels(key.name).inc(tokens)
        known = getattr(scope.get("route"), "path", "other")
        self.service.metrics.answers.labels(known, str(status)).inc()
        line = {
            "id": state["id"],
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        if key is not None:
            line["key"] = key.name
        log.info(
            printable(
                line
                | {
                    name: state[name]
                    for name in ("model", "tokens", "asked", "left_out")
                    if state.get(name) is not None
                },
            )
        )


CONTROL = {number: f"\\u{number:04x}" for number in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


def printable(content: dict[str, Any]) -> str:
    """JSON without characters that move the cursor of a terminal or end a line of the log."""
    return json.dumps(content, ensure_ascii=False).translate(CONTROL)
