"""The formats that linear layers of a text run can have for inference."""

from __future__ import annotations

from typing import Literal, cast, get_args

from torch import nn

from sanbu.config import ConfigError, kind_of, nearest
from sanbu.models.tokens.transformer import Decoder
from sanbu.run import Run
from sanbu.serve.weights.int8 import quantize
from sanbu.serve.weights.packed import pack, pack_bfloat16

Weights = Literal["full", "bfloat16", "int8"]


def known(weights: str) -> Weights:
    """The format of this name. Raises ConfigError."""
    names = get_args(Weights)
    if weights not in names:
        raise ConfigError(f"--weights: given {weights!r}, allowed: {', '.join(names)}{nearest(weights, names)}")
    return cast(Weights, weights)


def convert_run(run: Run, weights: str) -> Run:
    """Convert the model of a run in place. Raises ConfigError for a format that it cannot have."""
    chosen = known(weights)
    if chosen != "full" and not isinstance(run.model, Decoder):
        kind = kind_of(run.recipe.model)
        raise ConfigError(f"--weights: given {weights}, but {run.folder} is a {kind!r}; only transformers have it")
    convert(run.model, chosen)
    return run


def convert(model: nn.Module, weights: Weights) -> None:
    """Convert the linear layers of a decoder in place; other models stay as they are."""
    if not isinstance(model, Decoder):
        return
    if weights == "int8":
        quantize(model)
    elif weights == "full":
        pack(model)
    elif model.embedding.tokens.weight.device.type == "cpu":
        pack_bfloat16(model)
    else:
        model.bfloat16()
