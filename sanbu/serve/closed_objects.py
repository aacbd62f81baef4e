"""Objects in JSON schemas that have no members but those which the schema lists.

A JSON schema allows further members unless it says `additionalProperties: false`, which few clients send. A model that
is free to add members may do so until its context is full, and nobody reads them. Where a schema applies several
schemas to one object, each may list a part of its members only, so such a schema is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DATA = {"const", "enum", "default", "examples", "example", "required", "dependentRequired", "type"}  # hold no schemas
MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}  # of names to schemas
SEVERAL = ("$ref", "anyOf", "oneOf", "allOf")  # apply further schemas to the same value
CONDITIONS = ("not", "if", "dependentSchemas", "unevaluatedProperties", "$dynamicRef", "$recursiveRef")
OF_OBJECTS = ("properties", "required", "minProperties", "dependentRequired")
OPEN = ("additionalProperties", "patternProperties", "propertyNames")  # says itself what else is allowed


def closed(schema: Any) -> Any:
    """A copy in which every object that lists members has no others; the schema itself where it combines objects."""
    return schema if any(map(combines, every(schema))) else close(schema)


def close(schema: Any) -> Any:
    """A copy of a schema or a list of schemas in which every object is closed."""
    if isinstance(schema, list):
        return [close(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: close_value(key, value) for key, value in schema.items()}
    return {**made, "additionalProperties": False} if complete(made) else made


def complete(schema: dict[str, Any]) -> bool:
    """Whether the listed members are enough for an object of the schema, which does not speak of others."""
    listed, needed, least = schema.get("properties"), schema.get("required", []), schema.get("minProperties", 0)
    if not (isinstance(listed, dict) and listed and isinstance(needed, list) and isinstance(least, int)):
        return False
    known = all(isinstance(name, str) and name in listed for name in needed)
    return known and least <= len(listed) and not any(name in schema for name in OPEN)


def close_value(key: str, value: Any) -> Any:
    """A copy of the value of a keyword."""
    if key in DATA:
        return value
    if key in MAPS and isinstance(value, dict):
        return {name: close(one) for name, one in value.items()}
    return close(value)


def every(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all schemas in it."""
    if isinstance(schema, list):
        for one in schema:
            yield from every(one)
    if not isinstance(schema, dict):
        return
    yield schema
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            yield from every(list(value.values()))
        elif key not in DATA:
            yield from every(value)


def combines(schema: dict[str, Any]) -> bool:
    """Whether several schemas may list the members of one object."""
    several = [name for name in SEVERAL if name in schema]
    parts = schema.get("allOf")
    if any(name in schema for name in CONDITIONS) or (isinstance(parts, list) and len(parts) > 1):
        return True
    return len(several) > 1 or (bool(several) and any(name in schema for name in OF_OBJECTS))
