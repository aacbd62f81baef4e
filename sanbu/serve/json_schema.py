"""JSON schemas as clients send them, made ready for the grammar: references, limits on size, and `oneOf`.

A reference is relative to its own schema. Where schemas are put into another one, as the parameters of tools are put
into the schema of a call, each becomes a definition and its references are rewritten (JSON Schema 2020-12, part 8).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from sanbu.config import SanbuError, nearest
from sanbu.serve.closed_objects import DATA, MAPS, closed

LONGEST = 1 << 18  # characters of a schema as compact JSON
DEEPEST = 60  # schemas and lists inside each other
NAMED = ("$id", "$anchor", "$schema")  # resolved here, so left out
NUMBERS = ("integer", "number")


class SchemaError(SanbuError):
    """A schema that is too large, or whose references lead nowhere."""


def check_size(schema: Any, depth: int = 0) -> None:
    """Raise SchemaError for a schema that is nested too deeply or too long."""
    if depth > DEEPEST:
        raise SchemaError(f"the schema is nested more than {DEEPEST} levels deep; make it flatter")
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for one in inner:
        check_size(one, depth + 1)
    if depth == 0:
        length = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")))
        if length > LONGEST:
            raise SchemaError(f"the schema has {length:,} characters; at most {LONGEST:,} are allowed")


def local(schema: Any, place: str = "") -> Any:
    """A copy whose references are pointers, valid where the schema lies at `place` in a document, as in /$defs/0.

    Objects have the members that are listed, and no others; see closed_objects.

    Raises SchemaError for a reference to something outside the schema. Nothing is ever fetched.
    """
    check_size(schema)
    return closed(Localizer(schema, place).copy(schema, ""))


class Localizer:
    """Rewrites the references of one schema. ids: where each $id and $anchor lies, as a pointer."""

    def __init__(self, schema: Any, place: str) -> None:
        self.schema, self.place = schema, place
        self.ids: dict[str, str] = {"": ""}
        for base, pointer, one in identified(schema):
            self.ids.setdefault(base, pointer)
            if isinstance(one.get("$anchor"), str):
                self.ids[f"{base}#{one['$anchor']}"] = pointer

    def copy(self, schema: Any, base: str) -> Any:
        """A copy of a schema; base: the URI to which its references are relative."""
        if not isinstance(schema, dict):
            return schema
        if isinstance(schema.get("$id"), str):
            base = joined(base, schema["$id"])[0]
        made = {key: self._value(key, value, base) for key, value in schema.items() if key not in NAMED}
        if isinstance(made.get("items"), list):  # a tuple, as drafts before 2020 write it
            made["prefixItems"] = made.pop("items")
            if "additionalItems" in made:
                made["items"] = made.pop("additionalItems")
        if "oneOf" in made and "anyOf" not in made and exclusive(made["oneOf"]):
            made["anyOf"] = made.pop("oneOf")
        return made

    def _value(self, key: str, value: Any, base: str) -> Any:
        if key == "$ref" and isinstance(value, str):
            return self._reference(value, base)
        if key in DATA:
            return value
        if key in MAPS and isinstance(value, dict):
            return {name: self.copy(one, base) for name, one in value.items()}
        if isinstance(value, list):
            return [self.copy(one, base) for one in value]
        return self.copy(value, base)

    def _reference(self, given: str, base: str) -> str:
        address, fragment = joined(base, given)
        named = f"{address}#{fragment}" if fragment and not fragment.startswith("/") else address
        if named not in self.ids:
            known = [name for name in self.ids if "#" in name] or ["#"]
            raise SchemaError(
                f"$ref: given {given[:200]!r}, allowed: references within the schema{nearest(given, known)}"
            )
        pointer = self.ids[named] + (fragment if fragment.startswith("/") else "")
        check_pointer(self.schema, pointer, given)
        return f"#{self.place}{pointer}"


def joined(base: str, given: str) -> tuple[str, str]:
    """A relative URI as an absolute one without its fragment, and the fragment."""
    try:
        address, fragment = urldefrag(urljoin(base, given))
    except ValueError:
        raise SchemaError(f"{given[:200]!r} is not a valid URI") from None
    return address, fragment


def identified(schema: Any, base: str = "", pointer: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(base URI, pointer, schema) of each schema with a name of its own."""
    if isinstance(schema, list):
        for number, one in enumerate(schema):
            yield from identified(one, base, f"{pointer}/{number}")
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("$id"), str):
        base = joined(base, schema["$id"])[0]
    if any(isinstance(schema.get(name), str) for name in ("$id", "$anchor")):
        yield base, pointer, schema
    for key, value in schema.items():
        if key not in DATA:
            yield from identified(value, base, f"{pointer}/{escaped(key)}")


def escaped(name: str) -> str:
    """A name in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def check_pointer(schema: Any, pointer: str, given: str) -> None:
    """Raise SchemaError if a JSON pointer leads nowhere; the message has the nearest name."""
    for part in pointer.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, dict) and name in schema:
            schema = schema[name]
        elif isinstance(schema, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(schema):
            schema = schema[int(name)]
        else:
            names = list(schema)[:100] if isinstance(schema, dict) else []
            raise SchemaError(f"$ref: given {given[:200]!r}, there is no {name[:80]!r}{nearest(name, names)}")


def exclusive(branches: Any) -> bool:
    """Whether no value can be of two of the branches: constants that differ, or types that differ."""
    if not isinstance(branches, list) or len(branches) > 1000 or not all(isinstance(one, dict) for one in branches):
        return False
    values = [values_of(one) for one in branches]
    if all(one is not None for one in values):
        flat = [value for one in values for value in set(one or ())]
        return len(flat) == len(set(flat))
    if len(branches) > 64:
        return False
    return all(apart(one, other) for one, other in itertools.combinations(branches, 2))


def values_of(schema: dict[str, Any]) -> list[str] | None:
    """The values that a schema lists, each as JSON; None if it does not list them."""
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(given, list):
        return None
    return [json.dumps(plain_number(value), sort_keys=True) for value in given]


def plain_number(value: Any) -> Any:
    """A whole number as an integer: in JSON Schema 1.0 equals 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two schemas have no type in common, or are numbers of ranges that do not meet."""
    mine, theirs = types_of(one), types_of(other)
    if mine is None or theirs is None:
        return False
    common = mine & theirs
    if not common:
        return True
    return common <= set(NUMBERS) and (below(one, other) or below(other, one))


def types_of(schema: dict[str, Any]) -> set[str] | None:
    """The types of a schema; a number may be an integer. None: any."""
    given = schema.get("type")
    if given is None and ("const" in schema or isinstance(schema.get("enum"), list)):
        found = {type_of(value) for value in ([schema["const"]] if "const" in schema else schema["enum"])}
    elif isinstance(given, str):
        found = {given}
    elif isinstance(given, list) and all(isinstance(name, str) for name in given):
        found = set(given)
    else:
        return None
    return found | {"integer"} if "number" in found else found


def type_of(value: Any) -> str:
    """The name that JSON Schema has for the type of a value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def below(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether every number of one schema is smaller than every number of the other."""
    top: Any = one.get("maximum", one.get("exclusiveMaximum"))
    bottom: Any = other.get("minimum", other.get("exclusiveMinimum"))
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (top, bottom)):
        return False
    touching = "maximum" in one and "minimum" in other
    return bool(top < bottom or (top == bottom and not touching))
