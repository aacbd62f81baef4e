"""Error responses in OpenAI's format, which its clients turn into exceptions."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sanbu.config import SanbuError
from sanbu.serve.request import Busy

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    431: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": text}
    for code, text in (
        (400, "invalid request; the message names the field"),
        (404, "model not found"),
        (429, "rate limit reached or queue full; retry later"),
    )
}


class APIError(Exception):
    """An error response: HTTP status, one-line message, the field at fault, error code; wait: seconds until a retry."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        wait: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.wait, self.headers = status, param, code, wait, headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON body, {"error": ...}."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response, with a Retry-After header if a retry makes sense."""
        headers = dict(self.headers)
        if self.wait:
            headers["Retry-After"] = str(self.wait)
        if self.status >= 500 and not self.wait:
            headers["x-should-retry"] = "false"
        return JSONResponse(self.body(), self.status, headers)


def api_error(error: Exception) -> APIError:
    """Any exception as an APIError; unexpected ones become a 500 without internal details."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, Busy):
        return APIError(429, str(error), code="queue_full", wait=1)
    if isinstance(error, SanbuError):
        return APIError(400, str(error))
    if isinstance(error, RecursionError):
        return APIError(400, "the request is nested too deeply")
    return APIError(500, "internal error; see the server log for this request ID")


def install_handlers(app: FastAPI) -> None:
    """Install exception handlers that return every error in this format."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        what = {
            404: f"no endpoint at {request.url.path}; see /openapi.json",
            405: f"{request.method} is not allowed at {request.url.path}",
        }
        answer = APIError(error.status_code, what.get(error.status_code, str(error.detail))).response()
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def form_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]  # of a form; JSON bodies are checked by their route
        name = ".".join(str(part) for part in first["loc"] if part != "body")
        return APIError(400, f"{name}: {first['msg']}", name or None).response()

    for kind in (APIError, SanbuError):

        @app.exception_handler(kind)
        async def library_error(request: Request, error: Exception) -> JSONResponse:
            return api_error(error).response()
