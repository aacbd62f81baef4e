"""A JSON file of settings that is read to its last field: what nobody asks for is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sanbu.config import SanbuError, nearest

Fields = dict[str, Any]


class InteropError(SanbuError):
    """A folder or a run that cannot be converted."""


class Sheet:
    """The fields of one file. A field is used (`get`), fixed (`only`) or harmless; `close` refuses all others."""

    def __init__(self, fields: Mapping[str, Any], place: Path, where: str = "") -> None:
        self.fields, self.place, self.where = fields, place, where
        self.seen: set[str] = set()

    def get(self, name: str, default: Any) -> Any:
        """The value of a field, or the default if it is missing or null. Raises InteropError for another type."""
        self.seen.add(name)
        value = self.fields.get(name)
        if value is None:
            return default
        if default is not None and not alike(value, default):
            self.refuse(name, f"a value such as {default!r}")
        return float(value) if isinstance(default, float) else value

    def optional(self, name: str, default: Any) -> Any:
        """As `get`, but null is a value of its own, None."""
        self.seen.add(name)
        return None if name in self.fields and self.fields[name] is None else self.get(name, default)

    def only(self, name: str, *allowed: Any) -> None:
        """Raise InteropError unless a field is missing or has one of these values."""
        self.seen.add(name)
        if name in self.fields and not any(same(self.fields[name], value) for value in allowed):
            self.refuse(name, ", ".join(map(repr, allowed)))

    def ignore(self, names: Iterable[str]) -> None:
        """Fields that do not change what the model computes."""
        self.seen |= set(names)

    def part(self, name: str) -> Sheet:
        """The fields of an object inside; empty if it is missing or null."""
        value = self.get(name, {})
        return Sheet(value, self.place, f"{self.where}{name}.")

    def close(self) -> None:
        """Raise InteropError for the first field that was not asked for and is not null."""
        for name, value in self.fields.items():
            if name not in self.seen and value is not None:
                given = f"{self.where}{name} is {shown(value)}"
                raise InteropError(f"{self.place}: {given}, an unknown field{nearest(name, sorted(self.seen))}")

    def refuse(self, name: str, allowed: str) -> None:
        """Raise InteropError for the value of a field."""
        raise InteropError(f"{self.place}: {self.where}{name} is {shown(self.fields.get(name))}, allowed: {allowed}")


def alike(value: Any, default: Any) -> bool:
    """Whether a value has the type of the default; an integer may stand for a real number, true for neither."""
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


def same(value: Any, allowed: Any) -> bool:
    """Equality that tells true from 1."""
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def shown(value: Any) -> str:
    """A value in an error, on one line of moderate length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
