"""Recipes: one function a system. `recipes.all()` lists them; each takes a size and returns a Recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from sanbu.config import ConfigError, nearest
from sanbu.recipe import Recipe
from sanbu.recipes.assistant import base, dpo, gpt1_classify, grpo, icl, ppo, reward, sft
from sanbu.recipes.images import consistency, ddpm, dit, edm, flow, gan, image_gpt, pixelcnn, pixelrnn, vae
from sanbu.recipes.text import gpt1, gpt2, gpt3, llama, modern, shakespeare

RecipeFunction = Callable[..., Recipe]
__all__ = [
    "all",
    "base",
    "consistency",
    "ddpm",
    "dit",
    "dpo",
    "edm",
    "find",
    "flow",
    "gan",
    "gpt1",
    "gpt1_classify",
    "gpt2",
    "gpt3",
    "grpo",
    "icl",
    "image_gpt",
    "llama",
    "make",
    "modern",
    "pixelcnn",
    "pixelrnn",
    "ppo",
    "reward",
    "sft",
    "shakespeare",
    "vae",
]
TEXT = (gpt1, gpt2, gpt3, llama, modern, shakespeare)
PICTURES = (pixelcnn, pixelrnn, image_gpt, vae, gan, ddpm, edm, flow, dit, consistency)

ASSISTANT = (base, sft, reward, ppo, grpo, dpo, gpt1_classify, icl)


def all() -> dict[str, RecipeFunction]:  # noqa: A001 - reads as recipes.all()
    """Every recipe by name."""
    return {function.__name__.replace("_", "-"): function for function in (*TEXT, *PICTURES, *ASSISTANT)}


def find(name: str) -> RecipeFunction:
    """The recipe of that name. Raises ConfigError with the nearest match."""
    if name not in all():
        raise ConfigError(f"unknown recipe {name!r}; recipes: {', '.join(all())}{nearest(name, all())}")
    return all()[name]


def make(name: str, assignments: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe with its own arguments (size=124m) taken out of the assignments; the rest are overrides."""
    function = find(name)
    accepted = inspect.signature(function).parameters
    arguments = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if equals and key in accepted:
            arguments[key] = value
    return function(**arguments), [text for text in assignments if text.partition("=")[0] not in accepted]
