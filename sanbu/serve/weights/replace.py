"""Other layers in the place of linear ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replaced(model: nn.Module, make: Callable[[nn.Linear], nn.Module], which: Callable[[nn.Linear], bool]) -> nn.Module:
    """The model with another layer for each plain linear one that is meant; layers that do more than a product stay."""
    for name, module in list(model.named_children()):
        if type(module) is nn.Linear and which(module):
            setattr(model, name, make(module))
        else:
            replaced(module, make, which)
    return model
