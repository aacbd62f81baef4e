"""The header of a safetensors file: how many numbers it holds, without reading them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

LARGEST = 100_000_000  # bytes of a header, as safetensors itself allows


@dataclass(frozen=True)
class Header:
    """elements: numbers in the file. bytes: its size. is_float32: whether all of them are."""

    elements: int
    bytes: int
    is_float32: bool

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The header of a file; None if there is none that can be read."""
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= LARGEST:
                    return None
                entries = json.loads(file.read(length))
            tensors = [entry for name, entry in entries.items() if name != "__metadata__"]
            elements = sum(math.prod(entry["shape"]) for entry in tensors)
            return cls(elements, path.stat().st_size, all(entry["dtype"] == "F32" for entry in tensors))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
