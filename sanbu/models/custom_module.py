"""Your own nn.Module as a model, without a config class.

The recipe stores where the class is defined, and its arguments:

    sanbu.models.custom(MyNetwork, family="denoiser", width=64)

The family decides how the module is called (see docs/extending.md). The run can be opened wherever the class can be
imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from sanbu.config import ConfigError, SanbuError, nearest
from sanbu.models.denoisers.denoiser import DenoiserConfig
from sanbu.models.model import ModelConfig
from sanbu.space import Space


class CustomConfig(ModelConfig):
    """Where a class is defined, and its arguments."""

    target: str = Field(description="where the class is defined, module:name")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the class")

    def dial(self) -> int:
        return int(self.arguments.get("width", 64))

    def build(self, space: Space) -> nn.Module:
        return make(self.target, self.arguments)


class CustomTokens(CustomConfig):
    """Your own model of tokens: forward(tokens_BT, positions_BT) -> logits_BTV."""

    kind: Literal["custom-tokens"] = "custom-tokens"
    family: ClassVar[str] = "tokens"


class CustomPixels(CustomConfig):
    """Your own model of levels: forward(levels_BCHW, label_B) -> log-probabilities; also `cache` and `next`."""

    kind: Literal["custom-pixels"] = "custom-pixels"
    family: ClassVar[str] = "pixels"


class CustomLatent(CustomConfig):
    """Your own latent variable model: forward(levels, label, noise) -> terms [B, K, 3]; also `latent` and `draw`."""

    kind: Literal["custom-latent"] = "custom-latent"
    family: ClassVar[str] = "latent"


class CustomGenerator(CustomConfig):
    """Your own generator: forward(noise_BZ, label_B) -> picture; also `latent`, `draw` and `critic`."""

    kind: Literal["custom-generator"] = "custom-generator"
    family: ClassVar[str] = "generator"


class CustomFunction(CustomConfig):
    """Your own module of no family, called by your own objective and strategy."""

    kind: Literal["custom"] = "custom"


class CustomDenoiser(DenoiserConfig):
    """Your own network under a denoiser: forward(x_BCHW, clock_B, label_B) -> the target, of the shape of x."""

    kind: Literal["custom-denoiser"] = "custom-denoiser"
    target_class: str = Field(description="where the class is defined, module:name")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the class")

    def dial(self) -> int:
        return int(self.arguments.get("width", 64))

    def network(self, space: Space) -> nn.Module:
        return make(self.target_class, self.arguments)


FAMILIES: dict[str, type[CustomConfig]] = {
    "": CustomFunction,
    "tokens": CustomTokens,
    "pixels": CustomPixels,
    "latent": CustomLatent,
    "generator": CustomGenerator,
}


def custom(
    module: Callable[..., nn.Module], family: str = "", denoiser: dict[str, Any] | None = None, **arguments: Any
) -> ModelConfig:
    """A model config for a class of your own.

    module: the class, or a function that makes the module; defined at the top level of a module or notebook. family:
    what it is called with. arguments: its keyword arguments, plain JSON values. denoiser: fields of `DenoiserConfig`
    (path, target) for family="denoiser". Raises ConfigError for an unknown family, or a class that cannot be found
    again by name.
    """
    place = f"{module.__module__}:{module.__qualname__}"
    if "<locals>" in place or "<lambda>" in place:
        raise ConfigError(f"models.custom: {place} is defined inside a function; move the definition to the top level")
    if family == "denoiser":
        return CustomDenoiser(target_class=place, arguments=arguments, **(denoiser or {}))
    if family not in FAMILIES:
        names = [*FAMILIES, "denoiser"]
        raise ConfigError(
            f"models.custom: given family={family!r}, allowed: {', '.join(names[1:])}{nearest(family, names)}"
        )
    return FAMILIES[family](target=place, arguments=arguments)


def make(place: str, arguments: dict[str, Any]) -> nn.Module:
    """Import and build a class (module:name). Raises SanbuError if it cannot be imported or refuses its arguments."""
    file, _, name = place.partition(":")
    try:
        found: Any = sys.modules.get(file) or import_module(file)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise SanbuError(
            f"model: {place} cannot be imported; define {name} in {file} before this run is opened"
        ) from None
    try:
        module = found(**arguments)
    except TypeError as error:
        raise SanbuError(f"model.arguments: {place} refuses {arguments}: {error}") from None
    if not isinstance(module, nn.Module):
        raise SanbuError(f"model: {place} gives {type(module).__name__}, but a torch.nn.Module is needed")
    return module
