"""The sizes of a recipe, and the largest of them that fits into memory."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch

from sanbu import recipes
from sanbu.memory.check import fitting
from sanbu.memory.parts import size as readable
from sanbu.memory.training import least_kept
from sanbu.recipes.text import UnknownSize


def sizes(name: str) -> list[str]:
    """The sizes that a recipe takes, smallest first; empty for a recipe without sizes."""
    function = recipes.find(name)
    if "size" not in inspect.signature(function).parameters:
        return []
    try:
        function(size="")
    except UnknownSize as error:
        return [each for each in error.sizes if each != "paper"]
    return []


def largest_fitting(name: str, assignments: Sequence[str], left: int) -> str:
    """The largest size below the given one that fits, and with how many rows, in a phrase; empty if none does."""
    given = next((text.partition("=")[2] for text in assignments if text.startswith("size=")), "nano")
    names = sizes(name)
    given = names[-1] if given == "paper" and names else given
    smaller = names[: names.index(given)] if given in names else []
    for each in reversed(smaller):
        changes = [f"size={each}", *(text for text in assignments if not text.startswith("size="))]
        recipe, rest = recipes.make(name, changes)
        recipe = recipe.change(*rest).resolve()
        if least_kept(recipe) > left:
            continue
        found = fitting(recipe, {}, torch.float32, left)
        if found is not None:
            return f"{' '.join((f'size={each}', found[0])).strip()} fits (about {readable(found[1])})"
    return ""
