"""Recipes: one function for each system, in the file of its modality. Each takes a size and returns a Recipe.

`sanbu.recipes.gpt2()` imports the file when it is first asked for; `describe()` reads names and first lines and
imports nothing.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanbu.config import ConfigError, nearest

if TYPE_CHECKING:
    from sanbu.recipe import Recipe

RECIPES = {
    # text
    "gpt1": "text",
    "gpt2": "text",
    "gpt3": "text",
    "llama": "text",
    "modern": "text",
    "shakespeare": "text",
    "ngram": "text",
    "mixture": "text",
    # tables
    "classify": "tables_supervised",
    "regress": "tables_supervised",
    # classes of pictures
    "digits-classify": "classifiers",
    # pictures
    "few-labels": "labels",
    "reconstruct": "labels",
    "pixelcnn": "images",
    "pixelrnn": "images",
    "image-gpt": "images",
    "vae": "images",
    "gan": "images",
    "ddpm": "images",
    "edm": "images",
    "flow": "images",
    "dit": "images",
    "consistency": "images",
    # tables
    "table": "tables",
    "table-flow": "tables",
    # sound
    "vocoder": "vocoders",
    "istft-head": "vocoders",
    "hifigan": "vocoders",
    "wavenet": "vocoders",
    "waveglow": "vocoders",
    "tuned-vocoder": "speech",
    "sound-codec": "codecs",
    "codec-language": "codecs",
    "fastspeech2": "speech",
    "tacotron2": "speech",
    "fastspeech": "speech",
    "flow-speech": "speech",
    "recogniser": "speech",
    "notes": "music",
    "note-chain": "music",
    "performer": "music",
    "flow-performer": "music",
    # alignment
    "base": "alignment",
    "sft": "alignment",
    "reward": "alignment",
    "ppo": "alignment",
    "grpo": "alignment",
    "dpo": "alignment",
    "gpt1-classify": "alignment",
    "icl": "alignment",
}
PIPELINES = {"assistant": "pipelines", "tts": "pipelines", "music": "pipelines"}  # recipes that follow each other


def __getattr__(name: str) -> Callable[..., Recipe]:
    if name.replace("_", "-") in RECIPES:
        return find(name.replace("_", "-"))
    raise AttributeError(f"module 'sanbu.recipes' has no attribute {name!r}{nearest(name, RECIPES)}")


def find(name: str) -> Callable[..., Recipe]:
    """The recipe of that name. Raises ConfigError with the nearest match."""
    if name in PIPELINES:
        raise ConfigError(f"{name} is a pipeline of several recipes; see: sanbu show {name}")
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; recipes: {', '.join(RECIPES)}{nearest(name, RECIPES)}")
    return getattr(import_module(f"sanbu.recipes.{RECIPES[name]}"), name.replace("-", "_"))


def make(name: str, assignments: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe with its own arguments (size=124m) taken out of the assignments; the rest are overrides."""
    function = find(name)
    mine, rest = arguments(inspect.signature(function).parameters, assignments)
    return function(**mine), rest


def arguments(accepted: Mapping[str, Any], assignments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Assignments split into arguments of a function, by name, and the rest as it is."""
    mine: dict[str, str] = {}
    rest: list[str] = []
    for text in assignments:
        key, equals, value = text.partition("=")
        if equals and key in accepted:
            mine[key] = value
        else:
            rest.append(text)
    return mine, rest


def describe() -> dict[str, str]:
    """The first line of every recipe and pipeline, by name; the files are read, not imported."""
    return {name: lines(file)[name.replace("-", "_")] for name, file in {**RECIPES, **PIPELINES}.items()}


@lru_cache
def lines(file: str) -> dict[str, str]:
    """The first line of the docstring of every function of a file in this folder."""
    tree = ast.parse((Path(__file__).parent / f"{file}.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name: (ast.get_docstring(node) or "").split("\n")[0] for node in functions}
