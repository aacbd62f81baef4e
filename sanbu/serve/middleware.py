"""What every request passes before it is looked at: size, origin, key, time; and what is written down about it."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanbu.serve.errors import APIError, translated
from sanbu.serve.service import Service

log = logging.getLogger("sanbu.serve.requests")
CLOSED = (
    "/v1/",
    "/chat/",
    "/completions",
    "/models",
    "/tokenize",
    "/metrics",
    "/embeddings",
    "/images/",
    "/responses",
)
LOCAL = ("localhost", "127.0.0.1", "::1")


class TooLarge(Exception):
    """The body is larger than allowed."""


class Gate:
    """The outermost layer. largest: bytes per body. origins: allowed CORS origins. local: only local host names."""

    def __init__(
        self, app: ASGIApp, service: Service, largest: int, origins: Sequence[str] = (), local: bool = True
    ) -> None:
        self.app, self.service, self.largest, self.origins, self.local = app, service, largest, origins, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, count its bytes, log it. Long because its closures share the count and the status."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, begun = Headers(scope=scope), time.perf_counter()
        given = headers.get("x-request-id", "")
        number = given if re.fullmatch(r"[\w.-]{1,128}", given) else f"req_{uuid.uuid4().hex}"
        state: dict[str, Any] = scope.setdefault("state", {})
        state["id"], status, sent, taken = number, 0, False, 0

        async def read() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.largest:
                raise TooLarge
            return message

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if taken > self.largest and not sent:
                raise TooLarge  # whatever the layers inside made of a body that broke off
            if message["type"] == "http.response.start":
                status, sent = message["status"], True
                heads = MutableHeaders(scope=message)
                heads["x-request-id"] = number
                if state.get("left_out"):
                    heads["x-left-out"] = state["left_out"]
            await send(message)

        try:
            self._admit(scope, headers, state)
            await self.app(scope, read, answer)
        except Exception as error:
            wrong = self._large() if isinstance(error, TooLarge) else translated(error)
            taken = 0
            if wrong.status == 500:
                log.exception("request %s failed", number)
            if not sent:
                await wrong.response()(scope, receive, answer)
        finally:
            self._note(scope, state, status, time.perf_counter() - begun)

    def _admit(self, scope: Scope, headers: Headers, state: dict[str, Any]) -> None:
        """Raise APIError for a foreign origin or host, a body too large, a wrong key, or while shutting down."""
        path = scope["path"]
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
        if self.local and host not in (*LOCAL, "testserver"):
            raise APIError(403, "this server answers to localhost only; --host opens it to others")
        origin = headers.get("origin")
        if origin and origin not in self.origins and urlsplit(origin).netloc != headers.get("host"):
            raise APIError(403, "this page may not ask here; sanbu serve --origin allows it")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.largest:
            raise self._large()
        if self.service.draining and path.startswith(CLOSED):
            raise APIError(503, "this server is going down", wait=2)
        if path.startswith(CLOSED) and scope["method"] != "OPTIONS":
            key = self.service.keys.who(headers.get("authorization", ""))
            if key is not None:
                self.service.keys.admit(key)
                state["key"] = key

    def _large(self) -> APIError:
        return APIError(413, f"the body is larger than {self.largest:,} bytes")

    def _note(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        """One line of JSON, without what was asked; and the figures."""
        key, tokens = state.get("key"), state.get("tokens", 0)
        if key is not None:
            self.service.keys.spend(key, tokens)
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
            json.dumps(
                line
                | {
                    name: state[name]
                    for name in ("model", "tokens", "asked", "left_out")
                    if state.get(name) is not None
                },
                ensure_ascii=False,
            )
        )
