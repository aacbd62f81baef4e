"""The state of a run whose models are divided: what a rank has of it, and what it takes of a whole one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sanbu.checkpoints import Writer
from sanbu.files import weights
from sanbu.optimizers.gradient import GradientSearch
from sanbu.optimizers.search import Search
from sanbu.parallel.divide import Divided, Models
from sanbu.parallel.world import World


def search_state(divided: Divided, player: str, learners: Models, search: Search) -> dict[str, Any]:
    """The state of a search; of one that is divided, what this rank has of it."""
    if player not in divided.orders or not isinstance(search, GradientSearch):
        return search.state_dict()
    from sanbu.parallel.stored import optimizer_state

    names, orders = divided.names(learners), divided.orders[player]
    found = [optimizer_state(each, order, names) for (each, _), order in zip(search.pairs, orders, strict=True)]
    return {"updates": search.updates, "optimizers": found}


def load_search(divided: Divided, player: str, learners: Models, search: Search, state: dict[str, Any]) -> None:
    """Take up the whole state of a search: what this rank holds of it."""
    if player not in divided.orders or not isinstance(search, GradientSearch):
        search.load_state_dict(state if divided.world.alone else whole_state(state))
        return
    from sanbu.parallel.stored import load_optimizer_state

    search.updates, names = state["updates"], divided.names(learners)
    for (optimizer, _), saved, order in zip(search.pairs, state["optimizers"], divided.orders[player], strict=True):
        load_optimizer_state(optimizer, saved, order, names)


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose tensors are read."""
    from sanbu.parallel.reading import read_all

    found: dict[str, Any] = read_all(state)
    return found


def load(divided: Divided, writer: Writer, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a checkpoint and the facts about it; one of several ranks reads later what it takes of the state."""
    if divided.world.alone:
        return writer.load_checkpoint(path)
    from sanbu.parallel.reading import load_together

    return load_together(divided.world, writer, path)


def weights_here(divided: Divided, module: nn.Module) -> dict[str, Tensor]:
    """The weights that this rank has; of a matrix that lies on two stages, that of the first."""
    found = weights(module)
    return {name: tensor for name, tensor in found.items() if name not in repeated(divided, module)}


def fitted(divided: Divided, module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors as this rank holds them."""
    if divided.world.alone:
        return tensors
    from sanbu.parallel.stored import as_held

    given = dict(tensors)
    for name, original in repeated(divided, module).items():
        given[name] = given[original]
    here = weights(module)
    if divided.world.degrees.pipeline > 1:
        given = {name: given[name] for name in here if name in given}
    return {name: as_held(here[name], tensor) if name in here else tensor for name, tensor in given.items()}


def repeated(divided: Divided, module: nn.Module) -> dict[str, str]:
    """The head of the last stage that is the embedding of the first: its name, and the name of the embedding."""
    found = {}
    prefixes = {id(part): f"{name}." if name else "" for name, part in module.named_modules()}
    for pipeline in divided.pipelines.values():
        prefix = prefixes.get(id(pipeline.decoder))
        if prefix is not None and pipeline.tied and pipeline.stages[-1].last:
            found[f"{prefix}head.weight"] = f"{prefix}embedding.tokens.weight"
    return found


def whole(divided: Divided, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the first rank; on the others nothing. Every rank takes part."""
    if divided.world.alone:
        return tensors
    from sanbu.parallel.stored import whole_weights

    return whole_weights(divided.world, tensors)


@dataclass(frozen=True)
class Kept:
    """What a checkpoint writes. about: facts. state: of this rank.

    weights, average: whole, on the first rank; empty where there are none or they are written already.
    """

    name: str
    step: int
    about: dict[str, Any]
    state: dict[str, Any]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]

    def copied(self) -> Kept:
        """With tensors that training does not change."""
        return Kept(self.name, self.step, self.about, *map(copied, (self.state, self.weights, self.average)))

    def save(self, world: World, writer: Writer) -> None:
        """Write the checkpoint; several ranks each write a part of it."""
        if world.alone:
            writer.save_checkpoint(self.name, self.state, self.about)
            return
        from sanbu.parallel.stored import save_together

        save_together(world, writer, self.name, self.state, self.about)

    def complete(self, world: World, writer: Writer, keep: int, regular: int | None) -> None:
        """Write the model and the averages after the checkpoint, and delete old checkpoints.

        keep: how many to keep. regular: keep the latest one of a schedule of so many steps too.
        """
        best = self.about["best"][1] if self.about["best"] else None

        def write() -> None:
            if self.weights:
                writer.save_weights(self.weights, self.name)
            writer.save_average(self.name, self.step, self.average)
            writer.prune(keep, best, None if regular is None else writer.regular(regular))

        world.once(write)


def copied(tree: Any) -> Any:
    """A tree with tensors of its own."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [copied(value) for value in tree]
    return tree
