"""A recipe's models and searches, applied to a layout.

The order is: divide matrices, recompute and compile (`Machine.prepare`), cut stages, then divide or replicate weights.
Every model is first built whole from the seed, so that a run begins with the same weights in every layout. The engines
of torch are imported where they are used: a process that is alone does not pay for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sanbu.config import SanbuError
from sanbu.layers.average import Following
from sanbu.machine import Machine
from sanbu.optimizers.gradient import GradientSearch
from sanbu.optimizers.muon import MuonOptimizer
from sanbu.optimizers.search import Search
from sanbu.parallel.replicas import Reducer
from sanbu.parallel.world import World

if TYPE_CHECKING:
    from sanbu.parallel.deferred import Hollow
    from sanbu.parallel.pipeline import Pipeline
    from sanbu.parallel.stored import Order

Models = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Divided:
    """How the models of a run are divided.

    orders: the optimizers of each player, as they are for the whole models. reducers: those that sum the gradients of
    each player over the rows. partial: the names of the whole parameters of each model whose gradient is a sum over
    the tensor ranks. pipelines: of the models that are cut into stages. hollow: what fills models without contents.
    """

    world: World
    orders: dict[str, list[Order]] = field(default_factory=dict)
    reducers: dict[str, Reducer] = field(default_factory=dict)
    partial: dict[str, list[str]] = field(default_factory=dict)
    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    hollow: list[Hollow] = field(default_factory=list)

    def build(self, build: Callable[[], dict[str, nn.Module]]) -> dict[str, nn.Module]:
        """The models of a run; without contents, until they are divided, where weights are divided by ZeRO alone."""
        if self.world.alone or not self.world.layout.by_zero_alone:
            return build()
        from sanbu.parallel.deferred import build_hollow

        models, hollow = build_hollow(build)
        self.hollow.extend([hollow] if hollow else [])
        return models

    def remember(self, player: str, learners: Models, search: Search) -> None:
        """Note the parameters of the optimizers of a player, while the models are whole."""
        if self.world.alone or not isinstance(search, GradientSearch):
            return
        from sanbu.parallel.stored import Order

        names = {id(parameter): name for name, parameter in named_parameters(learners)}
        self.orders[player] = [Order.of(optimizer, names) for optimizer, _ in search.pairs]

    def prepare(self, models: dict[str, nn.Module], players: Mapping[str, tuple[str, ...]], machine: Machine) -> None:
        """Prepare the models for the machine and the layout, in place.

        Weights stay gathered during a turn with zero=2, and where several players call each other.
        """
        degrees = self.world.degrees
        learners = {name for names in players.values() for name in names}
        if degrees.pipeline > 1 and learners != {"model"}:
            raise SanbuError(
                f"layout.pipeline: given {degrees.pipeline}, but the objective trains {', '.join(sorted(learners))};"
                " allowed: 1, or an objective that trains the model alone"
            )
        whole = self.world.layout.zero == 2 or len(players) > 1
        for name, module in models.items():
            if degrees.tensor > 1:
                self._divide_matrices(name, module)
            if degrees.context > 1:
                self._divide_positions(module)
            if degrees.pipeline == 1:
                machine.prepare(module)
            else:
                replace(machine, compile=False).prepare(module)
                self._cut(name, module, machine)
            if self.world.layout.zero >= 2 and not self.world.alone:
                self._shard(name, module, machine, whole and name in learners)
        while self.hollow:
            self.hollow.pop().fill(models, machine.device)

    def _divide_matrices(self, name: str, module: nn.Module) -> None:
        from sanbu.parallel.tensors import divide_matrices

        for part in copies_of(module):
            self.partial[name] = divide_matrices(self.world, part)

    def _divide_positions(self, module: nn.Module) -> None:
        from sanbu.parallel.sequence import divide_positions

        for part in copies_of(module):
            divide_positions(self.world, part)

    def _cut(self, name: str, module: nn.Module, machine: Machine) -> None:
        from sanbu.parallel.pipeline import cut

        for number, part in enumerate(copies_of(module)):
            pipeline = cut(self.world, part)
            self.pipelines[f"{name}/{number}"] = pipeline
            for stage in pipeline.stages if machine.compile else ():
                stage.compile()

    def _shard(self, name: str, module: nn.Module, machine: Machine, whole: bool) -> None:
        from sanbu.parallel.shards import shard

        for number, part in enumerate(copies_of(module)):
            pipeline = self.pipelines.get(f"{name}/{number}")
            for each in [part] if pipeline is None else pipeline.stages:
                shard(self.world, each, machine.precision, whole, rest_whole=pipeline is not None)

    def search(self, search: Search) -> Search:
        """A search whose work is divided. Raises SanbuError for one that the layout does not allow."""
        zero = 0 if self.world.alone else self.world.layout.zero
        if zero and not isinstance(search, GradientSearch):
            raise SanbuError(f"layout.zero: given {zero}, but the optimizer has no gradient; allowed: 0")
        if not self.world.alone and isinstance(search, GradientSearch):
            from sanbu.parallel.matrices import polar_over_ranks

            for number, (optimizer, _) in enumerate(search.pairs):
                if isinstance(optimizer, MuonOptimizer):
                    optimizer.polar = polar_over_ranks
                search.peaks[number] = split_groups(optimizer, search.peaks[number])
            if zero == 1:
                from sanbu.parallel.shards import divide_updates

                divide_updates(self.world, search)
        return search

    def give_back(self, models: Mapping[str, Any]) -> None:
        """Before a turn and after it: parameters are the divided ones, which hold the gradients and are updated."""
        if modules := self._sharded(models):
            from sanbu.parallel.shards import give_back

            give_back(modules)

    def keep_gathered(self, models: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Inside, weights that a pass gathers stay gathered, so that ranks may make different numbers of passes."""
        if modules := self._sharded(models):
            from sanbu.parallel.shards import keep_gathered

            return keep_gathered(modules)
        return nullcontext()

    def _sharded(self, models: Mapping[str, Any]) -> list[nn.Module]:
        """The modules whose weights ZeRO-2 or 3 divides."""
        if self.world.alone or self.world.layout.zero < 2:
            return []
        stages = (stage for pipeline in self.pipelines.values() for stage in pipeline.stages)
        return [*(module for module in models.values() if isinstance(module, nn.Module)), *stages]

    def names(self, learners: Models) -> dict[int, str]:
        """The names of the parameters on this rank, by id, as the whole model has them."""
        found = {id(parameter): name for name, parameter in named_parameters(learners)}
        for pipeline in self.pipelines.values():
            if pipeline.tied and pipeline.stages[-1].last:
                found[id(pipeline.decoder.head.weight)] = "model.embedding.tokens.weight"
        return found

    def twice(self) -> set[int]:
        """The ids of parameters that lie on two stages: an embedding and the head that is the same matrix."""
        found = set()
        for pipeline in self.pipelines.values():
            if pipeline.tied and pipeline.stages[0].first:
                found.add(id(pipeline.decoder.embedding.tokens.weight))
            if pipeline.tied and pipeline.stages[-1].last:
                found.add(id(pipeline.decoder.head.weight))
        return found


def split_groups(optimizer: torch.optim.Optimizer, peaks: list[float]) -> list[float]:
    """Groups of parameters that are divided alike, because torch updates a group at once; their peak rates."""
    groups, found = [], []
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        alike: dict[Any, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            alike.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
        groups += [{**group, "params": members} for members in alike.values()]
        found += [peak] * len(alike)
    optimizer.param_groups = groups
    return found


def copies_of(module: nn.Module) -> list[nn.Module]:
    """The module, or the copies of a model that an average holds; without those that have no parameters."""
    found = list(module.children()) if isinstance(module, Following) else [module]
    return [each for each in found if any(True for _ in each.parameters())]


def named_parameters(learners: Models) -> Iterable[tuple[str, nn.Parameter]]:
    """Every parameter of several models once, with the name of its model before its own."""
    seen: set[int] = set()
    for model, module in learners.items():
        for name, parameter in module.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{model}.{name}", parameter
