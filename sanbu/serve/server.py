"""The HTTP server: its socket, graceful shutdown, and logs as lines of JSON."""

from __future__ import annotations

import gc
import logging
import socket
import sys
import webbrowser
from collections.abc import Sequence
from threading import Timer

import uvicorn
from fastapi import FastAPI

from sanbu.config import SanbuError
from sanbu.serve.protocol import LimitedProtocol


def listen(
    app: FastAPI,
    host: str,
    port: int,
    names: Sequence[str],
    show: bool = False,
    path: str = "/v1",
    drain: int = 30,
    notice: float = 0,
) -> None:
    """Serve until interrupted, then finish running requests within `drain` seconds.

    notice: seconds in which /health says 503 and requests are still served, so that a balancer looks elsewhere.
    show: open a browser. path: of the address that is printed.
    """
    write_log()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((host, port))
            place.listen()  # connections are accepted before the address is printed
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SanbuError(f"cannot listen on --host {host} --port {port}: {reason}") from None
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{place.getsockname()[1]}"
        print(f"{', '.join(names)} at {address}{path}", flush=True)
        allow_connections()
        gc.collect()
        gc.freeze()  # what is loaded now stays: collections during a large request need not look at it
        config = uvicorn.Config(
            app,
            http=LimitedProtocol,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=drain,
            server_header=False,
            timeout_keep_alive=75,  # longer than clients keep connections, so that the client closes first
        )
        if show:
            Timer(1, webbrowser.open, [address]).start()
        Server(config, app, notice).run(sockets=[place])


def write_log() -> None:
    """Write the log of the service to stderr, as lines of JSON."""
    log = logging.getLogger("sanbu.serve")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)


def allow_connections() -> None:
    """Allow as many open files as the system permits; some are left for the files of runs."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(most, 1 << 16) if most != resource.RLIM_INFINITY else 1 << 16
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    LimitedProtocol.most = max(64, most // 2)


class Server(uvicorn.Server):
    """Rejects new requests once shutdown has begun, which is `notice` seconds after the first signal."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, notice: float = 0) -> None:
        super().__init__(config)
        self.app, self.notice = app, notice

    def handle_exit(self, sig: int, frame: object) -> None:
        """On a signal, start draining: after the notice, or at once for a second signal."""
        service = self.app.state.service
        if self.notice and not service.leaving:
            service.leaving = True
            timer = Timer(self.notice, self.handle_exit, [sig, frame])
            timer.daemon = True
            timer.start()
            return
        service.draining = True
        super().handle_exit(sig, frame)  # type: ignore[arg-type]
