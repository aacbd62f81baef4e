"""Sanbu (三步): generative learning in three steps. Choose a set of functions, choose what makes one good, find the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Recipe", "Run", "load", "recipes", "train"]

if TYPE_CHECKING:
    from sanbu import recipes
    from sanbu.loop import train
    from sanbu.recipe import Recipe
    from sanbu.run import Run

    load = Run.open

HOMES = {"Recipe": "sanbu.recipe", "Run": "sanbu.run", "train": "sanbu.loop"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import sanbu` needs no torch."""
    from importlib import import_module

    if name == "load":
        return import_module("sanbu.run").Run.open
    if name == "recipes":
        return import_module("sanbu.recipes")
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'sanbu' has no attribute {name!r}")
