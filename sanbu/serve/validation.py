"""What is wrong with a request body, in one line: the field, what was given, what is allowed, the nearest match."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sanbu.config import nearest
from sanbu.serve import schemas

PICTURES = ("image_url", "input_image", "input_audio", "audio", "video_url", "file", "input_file")
SHAPES = {"string_type", "list_type", "dict_type", "model_type", "model_attributes_type", "int_type", "float_type"}
SHAPES |= {"bool_type", "none_required", "literal_error"}


def explain(errors: Sequence[Mapping[str, Any]], body: Any) -> tuple[str | None, str]:
    """(path of the field, message) of the errors that pydantic found in a body.

    Where a field may have several forms, pydantic reports what each of them misses. See `likelihood`.
    """
    first = errors[0]["loc"][:1]
    alike = [error for error in errors if error["loc"][:1] == first]
    placed = [(list(real_path(error, body)), error) for error in alike]
    path, error = max(placed, key=lambda pair: likelihood(*pair))
    chosen = [(other, one) for other, one in placed if len(other) == len(path)]
    name = ".".join(path)
    if not name:
        return None, "the request body must be a JSON object"
    return name, f"{name}: {reason(path, error, [e for p, e in chosen if p == path])}"


def likelihood(path: Sequence[str], error: Mapping[str, Any]) -> tuple[bool, int, int, list[int]]:
    """How likely an error is the one to tell, of those of all forms: the form that was meant fits best.

    A value that has the right form but exceeds a limit comes first, then the error that lies deepest in the body.
    """
    kinds = ("missing", "extra_forbidden", "literal_error")
    kind = error["type"]
    exact = kind not in SHAPES and kind not in kinds
    indices = [int(part) for part in path if part.isdigit()]
    return exact, len(path), kinds.index(kind) + 1 if kind in kinds else 0, indices


def real_path(error: Mapping[str, Any], body: Any) -> Iterator[str]:
    """The path of an error within the body, without the names that pydantic gives to the forms of a field."""
    parts = error["loc"]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if (isinstance(body, dict) and part in body) or (
            isinstance(body, list) and isinstance(part, int) and part < len(body)
        ):
            body = body[part]
        elif not (last and error["type"] in ("missing", "extra_forbidden")):
            continue
        yield str(part)


def reason(path: Sequence[str], error: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What was given and what is allowed."""
    kind, given = error["type"], shown(error.get("input"))
    context = error.get("ctx") or {}
    if kind == "extra_forbidden":
        return unknown(path, others)
    if kind == "missing":
        return "Field required"
    if kind == "too_long":
        return f"given {length_of(context.get('actual_length'), error)}, allowed: at most {context['max_length']}"
    if kind == "literal_error":
        hint = "; pictures, sound and files are not read here" if error.get("input") in PICTURES else ""
        return f"given {given}, allowed: {expected(others)}{near(error, others)}{hint}"
    if kind in SHAPES:
        return f"given {given}, allowed: {' or '.join(dict.fromkeys(allowed_shape(e) for e in others))}"
    text = str(error["msg"]).removeprefix("Value error, ")
    return text if kind == "value_error" else f"given {given}, but {text[:1].lower()}{text[1:]}"


def length_of(length: int | None, error: Mapping[str, Any]) -> str:
    """How many parts there are."""
    return f"{length or len(error['input'])} items"


def unknown(path: Sequence[str], others: Sequence[Mapping[str, Any]]) -> str:
    """That there is no such field, or that it is one of OpenAI's which is not supported."""
    if path[-1] in schemas.UNSUPPORTED:
        return "is not supported; leave it out"
    known = sorted({name for cls in schemas.bodies() for name in cls.model_fields})
    return f"no such field{nearest(path[-1], known)}"


def expected(errors: Sequence[Mapping[str, Any]]) -> str:
    """The values of all forms that list some."""
    told = [(error.get("ctx") or {}).get("expected", "") for error in errors]
    return " or ".join(dict.fromkeys(filter(None, told)))


def near(error: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """The nearest of the allowed values."""
    given = error.get("input")
    values = expected(others).replace(" or ", ", ").replace("'", "").split(", ")
    return nearest(given[:80], values) if isinstance(given, str) else ""


def allowed_shape(error: Mapping[str, Any]) -> str:
    """What a form of a field must be, from pydantic's sentence about it."""
    expected_values = (error.get("ctx") or {}).get("expected")
    text = str(error["msg"]).removeprefix("Input should be ")
    return str(expected_values or text).replace("valid dictionary", "valid object")


def shown(given: Any) -> str:
    """A given value as JSON, cut after 80 characters; large ones by their kind only."""
    if isinstance(given, (list, dict)) and len(given) > 20:
        return f"{'a list' if isinstance(given, list) else 'an object'} of {len(given)} items"
    if isinstance(given, str):
        given = given[:80]
    try:
        text = json.dumps(given, default=str)
    except (ValueError, RecursionError):
        return f"a value of type {type(given).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
