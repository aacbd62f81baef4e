"""HTTP connections with limits: on the size of headers, on the time to send them, on idle connections."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sanbu.serve.errors import APIError

LARGEST = 1 << 16  # bytes of the first line and the headers of a request
SECONDS = 20.0  # to send them, from the opening of a connection or the first byte of the next request


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. idle: connections without a request, oldest first; at most `most` are kept."""

    idle: ClassVar[dict[LimitedProtocol, None]] = {}
    most: ClassVar[int] = 1024
    head = 0  # bytes received of headers that are not complete yet; -1 while a body is received
    parts = 0  # headers and bodies that are complete
    refused = False  # what comes is not read any more
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request; close the connection that is idle for the longest time if there are too many."""
        super().connection_made(transport)
        self._wait(0)
        while len(self.idle) > self.most:
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            oldest.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read data, and refuse headers that are too long."""
        if self.head == 0 and self.timer is None:  # the first bytes of a further request
            self._wait(0)
        if self.refused:
            return
        known = self.parts
        super().data_received(data)
        if self.head >= 0 and self.parts == known:
            self.head += len(data)
            if self.head > LARGEST:
                self._refuse(431, f"the headers are larger than {LARGEST:,} bytes")

    def on_headers_complete(self) -> None:
        """Hand the request over, unless its headers are too long."""
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > LARGEST:
            self._refuse(431, f"the headers are larger than {LARGEST:,} bytes")
            return
        self._rest()
        self.head, self.parts = -1, self.parts + 1
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The next bytes belong to the next request."""
        if self.cycle is not None:
            super().on_message_complete()
        self.head, self.parts = 0, self.parts + 1

    def on_response_complete(self) -> None:
        """The connection is idle again."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self.idle[self] = None

    def _wait(self, received: int) -> None:
        self.head, self.idle[self] = received, None
        self.timer = self.loop.call_later(SECONDS, self._late)

    def _rest(self) -> None:
        self.idle.pop(self, None)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _late(self) -> None:
        self.timer = None
        if self.head > 0:
            self._refuse(408, f"the headers did not arrive within {SECONDS:g} s")
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application, and close the connection."""
        if self.transport.is_closing() or self.refused:
            return
        self.refused = True
        self._rest()
        response = APIError(status, message).response()
        lines = [f"HTTP/1.1 {status} {message}", "connection: close"]
        lines += [f"{name.decode()}: {value.decode()}" for name, value in response.raw_headers]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(response.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(1, self.transport.close)  # at once, a client that still sends would not see the answer
