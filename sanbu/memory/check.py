"""Refusals: a run, or weights, that cannot fit into what is left of the memory are refused before they are built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sanbu.memory.headers import Header
from sanbu.memory.limits import Room, room
from sanbu.memory.parts import Parts, TooLarge, size
from sanbu.memory.training import count_kept, estimate, number, surely_below
from sanbu.recipe import Recipe

SURE = 0.8  # of the room: a run whose rough bound is below is not counted any closer
FLOAT = 4


def check_run(recipe: Recipe, parents: Mapping[str, Recipe], device: str, precision: torch.dtype) -> None:
    """Raise TooLarge for a resolved recipe whose training cannot fit. Takes milliseconds for what is small."""
    left = room(device).bytes
    need = counted(recipe, parents, precision, left)
    if need is not None and need.least > left:
        raise TooLarge(recipe.name, need, left, advise(recipe, parents, precision, left))


def counted(recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype, left: int) -> Parts | None:
    """The estimate; None for a run that is surely small, or whose parts cannot be built without contents."""
    try:
        if surely_below(recipe, parents, round(SURE * left)):
            return None
        return estimate(recipe, parents, precision)
    except Exception:  # code of a user may need contents; what cannot be counted is not refused
        return None


def advise(recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype, left: int) -> str:
    """Fewer rows at a time with which a recipe fits; or that no number of rows does."""
    found = fitting(recipe, parents, precision, left)
    if found is None:
        return "lower model.width, model.layers or data.context"
    return f"{found[0]} fits (about {size(found[1])})"


def fitting(recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype, left: int) -> tuple[str, int] | None:
    """Changes of the schedule with which a recipe fits, and its memory then; None where a single row is too much."""
    name = "micro_batch" if recipe.objective.build().additive else "batch"
    most, looks = number(recipe.schedule.micro_batch), recipe.schedule.evaluate_rows
    if sum(count_kept(recipe, parents)) > left:
        return None
    one = estimate(recipe.change(batch=1, micro_batch=1, evaluate_rows=1), parents, precision)
    each = max(1, one.activations or 0)
    if one.total > left:
        return None
    rows = min(most, 1 + (left - one.total) // each)
    if rows == most and looks <= rows:
        return "", estimate(recipe, parents, precision).total
    changes = [f"schedule.{name}={rows}"] if rows < most else []
    changes += [f"schedule.evaluate_rows={rows}"] if rows < looks else []
    return " ".join(changes), one.total + (rows - 1) * each


def check_weights(name: str, files: list[Header], built: str = "float32", cache: int = 0, hint: str = "") -> None:
    """Raise TooLarge for weights that cannot be loaded. built: as `float32`, their type in memory; cache: bytes."""
    left: Room = room()
    elements = sum(file.elements for file in files)
    copied = sum(file.elements for file in files if built == "imported" and not file.is_float32)
    mapped = sum(file.bytes for file in files) if left.addresses else 0
    need = Parts(weights=FLOAT * (elements + copied) + mapped, cache=cache)
    if need.total > left.bytes:
        least = need.weights / max(1, elements)
        raise TooLarge(name, need, left.bytes, hint or f"about {left.bytes / least / 1e6:,.0f} million parameters fit")


def headers(paths: list[Path]) -> list[Header]:
    """The headers of weights files; those that cannot be read are left to whoever loads them."""
    return [header for path in paths if (header := Header.read(path)) is not None]
