"""Which methods the paths of the API have: HEAD where there is GET, and 405 also where the page lies at /."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from sanbu.serve.errors import APIError


class Endpoints:
    """The paths and methods of routers, each with the prefix under which it is included."""

    def __init__(self, routers: Sequence[tuple[str, APIRouter]]) -> None:
        self.routes = [
            (prefix, route) for prefix, router in routers for route in router.routes if isinstance(route, APIRoute)
        ]

    def methods(self, path: str) -> set[str]:
        """The methods of a path; none if it is no path of the API."""
        found: set[str] = set()
        for prefix, route in self.routes:
            if path.startswith(prefix) and route.path_regex.match(path[len(prefix) :]):
                found |= route.methods or set()
        return found

    def resolve(self, scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The scope with the method and path under which the API knows it. Raises APIError 405 for another method."""
        for path in dict.fromkeys((scope["path"], scope["path"].rstrip("/"))):
            allowed = self.methods(path)
            if not allowed:
                continue
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            if method not in allowed:
                shown = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
                line = f"{scope['method'][:20]} is not allowed at {scope['path'][:200]}; allowed: {shown}"
                raise APIError(405, line, headers={"allow": shown})
            return {**scope, "method": method, "path": path, "raw_path": path.encode()}
        return scope
