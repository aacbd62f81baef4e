"""Refusals: a run, or weights, that cannot fit into what is left of the memory are refused before they are built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sanbu.config import ConfigError
from sanbu.memory.headers import Header
from sanbu.memory.limits import Room, room, room_per_rank
from sanbu.memory.parts import Parts, TooLarge, size
from sanbu.memory.per_rank import Counted, that_fit
from sanbu.memory.training import count_kept, estimate, number, surely_below
from sanbu.parallel.world import World
from sanbu.recipe import Recipe

SURE = 0.8  # of the room: a run whose rough bound is below is not counted any closer
FLOAT = 4


def check_run(recipe: Recipe, parents: Mapping[str, Recipe], device: str, precision: torch.dtype) -> None:
    """Raise TooLarge for a resolved recipe whose training cannot fit here. Takes milliseconds for what is small."""
    left = room(device).bytes
    need = counted(recipe, parents, precision, left)
    if need is not None and need.least > left:
        raise TooLarge(recipe.name, need, left, advise(recipe, parents, precision, left))


def check_ranks(recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype, world: World) -> None:
    """Raise SanbuError in every rank of several if the fullest does not fit where there is least room for one."""
    left = world.least(room_per_rank(world.device.type, world.here))
    world.once(lambda: check_rank(recipe, parents, precision, world, left))


def check_rank(recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype, world: World, left: int) -> None:
    """Raise TooLarge if the fullest rank needs more bytes than are left for each, or first builds a model that does."""
    try:
        if surely_below(recipe, parents, round(SURE * left)):
            return
        whole = Counted.of(recipe, parents, precision)
        need = whole.rank(world.layout, world.degrees)
    except Exception:  # as in `counted`
        return
    name = f"{recipe.name} on {world.size} ranks ({world.degrees.describe()})"
    if whole.weights > left and ("model" in parents or not world.layout.by_zero_alone):
        raise TooLarge(name, Parts(whole.weights), left, "every rank first builds the whole model", "a rank")
    if need.least > left:
        raise TooLarge(f"a rank of {name}", need, left, advise_layout(whole, world.size, left), "it")


def advise_layout(whole: Counted, ranks: int, left: int) -> str:
    """A layout of as many ranks that fits; or that none does."""
    try:
        layout, _, need = that_fit(whole, ranks, left)[0]
    except ConfigError:
        return f"no layout of {ranks} ranks fits; take more, or lower schedule.micro_batch or model.width"
    given = " ".join(f"layout.{name}={value}" for name, value in layout.dividing().items())
    return f"{given} fits (about {size(need.total)} per rank)"


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
