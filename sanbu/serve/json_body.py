"""JSON responses that may be large: written in parts, so that other threads run in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi.responses import Response

PART = 64  # items of a list that are written at once


def response(content: dict[str, Any]) -> Response:
    """A JSON response. Takes long for large content, so call it off the event loop."""
    return Response("".join(parts(content)), media_type="application/json")


def parts(value: Any) -> Iterator[str]:
    """A JSON value as text, in parts."""
    if isinstance(value, dict) and large(value):
        yield "{"
        for number, (name, one) in enumerate(value.items()):
            yield f"{',' if number else ''}{text(name)}:"
            yield from parts(one)
        yield "}"
    elif isinstance(value, list) and value:
        yield "["
        for start in range(0, len(value), PART):
            yield "," if start else ""
            yield from items(value[start : start + PART])
        yield "]"
    else:
        yield text(value)


def items(values: list[Any]) -> Iterator[str]:
    """Some items of a list, with commas between them: all at once, or one by one where some are large."""
    if not any(map(large, values)):
        yield text(values)[1:-1]
        return
    for number, one in enumerate(values):
        yield "," if number else ""
        yield from parts(one)


def large(value: Any) -> bool:
    """Whether a value contains a list of many items."""
    if isinstance(value, list):
        return len(value) > PART or any(large(one) for one in value[:1])
    return isinstance(value, dict) and any(large(one) for one in value.values() if isinstance(one, (dict, list)))


def text(value: Any) -> str:
    """A JSON value as compact text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
