"""Parameters by role, for optimizers that treat matrices, embeddings, heads and vectors differently."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

ROLES = ("matrix", "embedding", "head", "vector")


def roles(models: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Each parameter once, by role. A head tied to an embedding is an embedding; convolutions are matrices."""
    found: dict[str, list[nn.Parameter]] = {role: [] for role in ROLES}
    seen: set[int] = set()
    for model in models.values():
        named = sorted(model.named_modules(), key=lambda pair: not isinstance(pair[1], nn.Embedding))
        for name, module in named:
            for parameter in module.parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    found[role(name, module, parameter)].append(parameter)
    return found


def role(name: str, module: nn.Module, parameter: nn.Parameter) -> str:
    """The role of a parameter of the module with this name."""
    if isinstance(module, nn.Embedding):
        return "embedding"
    if parameter.ndim < 2:
        return "vector"
    return "head" if "head" in name.split(".") else "matrix"
