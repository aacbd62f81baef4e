"""Replacement of linear layers."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_linears(
    model: nn.Module, make: Callable[[nn.Linear], nn.Module], which: Callable[[nn.Linear], bool]
) -> nn.Module:
    """Replace, in place, each nn.Linear that `which` selects; subclasses of nn.Linear are kept. Returns the model."""
    for name, module in list(model.named_children()):
        if type(module) is nn.Linear and which(module):
            setattr(model, name, make(module))
        else:
            replace_linears(module, make, which)
    return model
