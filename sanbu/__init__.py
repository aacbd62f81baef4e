"""Sanbu (三步): generative learning in three steps.

Choose a set of functions, choose what makes one good, find the best one; then choose how to draw samples.

    import sanbu

    run = sanbu.train(sanbu.recipes.gpt2(), steps=200)
    print(run.generate("import ", temperature=0.7))

Every name is imported when it is first used; `import sanbu` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "STOP",
    "ConfigError",
    "Recipe",
    "Run",
    "SanbuError",
    "Schedule",
    "Watcher",
    "compare",
    "data",
    "evaluate",
    "generate",
    "load",
    "models",
    "recipes",
    "strategies",
    "train",
]

if TYPE_CHECKING:
    from sanbu import data, models, recipes, strategies
    from sanbu.config import ConfigError, SanbuError
    from sanbu.evaluation.compare import compare
    from sanbu.evaluation.measure import evaluate
    from sanbu.loop import train
    from sanbu.recipe import Recipe, Schedule
    from sanbu.run import Run
    from sanbu.watcher import STOP, Watcher

    load, generate = Run.open, Run.generate

HOMES = {
    "ConfigError": "sanbu.config",
    "SanbuError": "sanbu.config",
    "Recipe": "sanbu.recipe",
    "Schedule": "sanbu.recipe",
    "Run": "sanbu.run",
    "Watcher": "sanbu.watcher",
    "STOP": "sanbu.watcher",
    "train": "sanbu.loop",
    "evaluate": "sanbu.evaluation.measure",
    "compare": "sanbu.evaluation.compare",
}
METHODS = {"load": "open", "generate": "generate"}  # of Run: sanbu.load(folder), sanbu.generate(run, prompt)
FOLDERS = ("data", "models", "objectives", "optimizers", "strategies", "recipes", "testing")


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    if name in METHODS:
        return getattr(import_module("sanbu.run").Run, METHODS[name])
    if name in FOLDERS:
        return import_module(f"sanbu.{name}")
    raise AttributeError(f"module 'sanbu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
