"""Routes whose JSON bodies are read and checked off the event loop: a body of some megabytes takes a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError

from sanbu.serve.delivery import prepare
from sanbu.serve.errors import APIError
from sanbu.serve.json_limits import check_counts
from sanbu.serve.schemas import Body
from sanbu.serve.validation import explain


class BodyRoute(APIRoute):
    """A route that calls its endpoint with `body` and `request`. One without a body is FastAPI's own."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        model = get_type_hints(self.endpoint).get("body")
        if model is None:
            return super().get_route_handler()

        async def handle(request: Request) -> Response:
            check_type(request)
            content = await request.body()
            body = await prepare(request, lambda: parsed(model, content), "reading")
            answer = await self.endpoint(body=body, request=request)
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return handle


def check_type(request: Request) -> None:
    """Raise APIError for a body that does not claim to be JSON."""
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise APIError(400, f"Content-Type: given {given[:80]!r}, allowed: 'application/json'")


def parsed(model: type[Body], content: bytes) -> Body:
    """The body. Raises APIError that names the field at fault."""
    try:
        text = content.decode(json.detect_encoding(content), "surrogatepass")
        check_counts(text)
        given = json.loads(text)
    except RecursionError:
        raise APIError(400, "the request body is nested too deeply") from None
    except ValueError:
        raise APIError(400, "the request body is not valid JSON") from None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        param, message = explain(error.errors(include_url=False), given)
        raise APIError(400, message, param) from None
