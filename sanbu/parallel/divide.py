"""A recipe's models and searches, applied to a layout.

The order is: cut stages, divide matrices, recompute and compile (`Machine.prepare`), then divide or replicate weights.
Every model is first built whole from the seed, so that a run begins with the same weights in every layout. The engines
of torch are imported where they are used: a process that is alone does not pay for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from sanbu.checkpoints import Writer
from sanbu.config import SanbuError
from sanbu.layers.average import Following
from sanbu.machine import Machine
from sanbu.objectives.objective import Turn
from sanbu.optimizers.gradient import GradientSearch
from sanbu.optimizers.muon import MuonOptimizer
from sanbu.optimizers.search import ONE, Pairs, Problem, Ranks, Search, Sums, one_after_another
from sanbu.parallel.replicas import Reducer
from sanbu.parallel.world import World, shared_parameters


@dataclass(frozen=True)
class Divided:
    """How the models of a run are divided.

    reducers: those that sum the gradients of each player over the rows. partial: the names of the whole
    parameters of each model whose gradient is a sum over the tensor ranks.
    """

    world: World
    reducers: dict[str, Reducer] = field(default_factory=dict)
    partial: dict[str, list[str]] = field(default_factory=dict)

    def prepare(self, models: dict[str, nn.Module], players: Mapping[str, tuple[str, ...]], machine: Machine) -> None:
        """Prepare the models for the machine and the layout, in place.

        Weights stay gathered during a turn with zero=2, and where several players call each other.
        """
        whole = self.world.layout.zero == 2 or len(players) > 1
        learners = {name for names in players.values() for name in names}
        for name, module in models.items():
            if self.world.degrees.tensor > 1:
                self._divide_matrices(name, module)
            machine.prepare(module)
            if self.world.layout.zero >= 2 and not self.world.alone:
                self._shard(module, machine, whole and name in learners)

    def _divide_matrices(self, name: str, module: nn.Module) -> None:
        from sanbu.parallel.tensors import divide_matrices

        for part in list(module.children()) if isinstance(module, Following) else [module]:
            if any(True for _ in part.parameters()):
                self.partial[name] = divide_matrices(self.world, part)

    def _shard(self, module: nn.Module, machine: Machine, whole: bool) -> None:
        from sanbu.parallel.shards import shard

        for part in list(module.children()) if isinstance(module, Following) else [module]:
            if any(True for _ in part.parameters()):
                shard(self.world, part, machine.precision, whole)

    def search(self, search: Search) -> Search:
        """A search whose work is divided. Raises SanbuError for one that the layout does not allow."""
        zero = 0 if self.world.alone else self.world.layout.zero
        if zero and not isinstance(search, GradientSearch):
            raise SanbuError(f"layout.zero: given {zero}, but the optimizer has no gradient; allowed: 0")
        if not self.world.alone and isinstance(search, GradientSearch):
            from sanbu.parallel.matrices import polar_over_ranks

            for optimizer, _ in search.pairs:
                if isinstance(optimizer, MuonOptimizer):
                    optimizer.polar = polar_over_ranks
            if zero == 1:
                from sanbu.parallel.shards import divide_updates

                divide_updates(self.world, search)
        return search

    def ranks(self) -> Ranks:
        """What the processes do together in a turn."""
        if self.world.alone:
            return ONE
        from sanbu.parallel.clip import clip_over_ranks

        clip = partial(clip_over_ranks, self.world)
        return Ranks(self._count, self._passes, self._total, clip, freezes=self.world.layout.zero < 2)

    def give_back(self, models: Mapping[str, Any]) -> None:
        """Before a turn and after it: parameters are the divided ones, which hold the gradients and are updated."""
        if not self.world.alone and self.world.layout.zero >= 2:
            from sanbu.parallel.shards import give_back

            give_back(module for module in models.values() if isinstance(module, nn.Module))

    # -- states -------------------------------------------------------------------------------------------------------

    def search_state(self, search: Search) -> dict[str, Any]:
        """The state of a search; of one that is divided, what this rank has of it."""
        if self.world.alone or not isinstance(search, GradientSearch):
            return search.state_dict()
        from sanbu.parallel.stored import optimizer_state

        return {"updates": search.updates, "optimizers": [optimizer_state(each) for each, _ in search.pairs]}

    def load_search(self, search: Search, state: dict[str, Any]) -> None:
        """Take up the whole state of a search: what this rank holds of it."""
        if self.world.alone or not isinstance(search, GradientSearch):
            search.load_state_dict(state)
            return
        from sanbu.parallel.stored import load_optimizer_state

        search.updates = state["updates"]
        for (optimizer, _), saved in zip(search.pairs, state["optimizers"], strict=True):
            load_optimizer_state(optimizer, saved)

    def fitted(self, module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors divided as the module's are."""
        if self.world.alone:
            return tensors
        from sanbu.parallel.stored import fitted

        return fitted(module, tensors)

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on the first rank; on the others nothing. Every rank takes part."""
        if self.world.alone:
            return tensors
        from sanbu.parallel.stored import whole_weights

        return whole_weights(self.world, tensors)

    def save(self, writer: Writer, name: str, state: dict[str, Any], about: dict[str, Any]) -> None:
        """Write a checkpoint; several ranks each write a part of it."""
        if self.world.alone:
            writer.save_checkpoint(name, state, about)
            return
        from sanbu.parallel.stored import save_together

        save_together(self.world, writer, name, state, about)

    # -- a turn -------------------------------------------------------------------------------------------------------

    def _count(self, turn: Turn) -> dict[str, float]:
        counts = {name: Tensor([value]).double()[0] for name, value in turn.count(turn.batch).items()}
        return {name: float(total) for name, total in self.world.total(counts).items()}

    def _passes(self, problem: Problem) -> tuple[Sums, Pairs]:
        learners = list(problem.learners.values())
        degrees, player = self.world.degrees, problem.turn.player
        if self.world.layout.zero >= 2 or degrees.data * degrees.context == 1:
            found = one_after_another(problem)
            self.give_back(problem.models)
            self._sum_partial(problem)
            return found
        if player not in self.reducers:
            parameters = [each for each in shared_parameters(learners) if each.requires_grad]
            self.reducers[player] = Reducer(parameters, self.world.batch)
        found = one_after_another(problem, self.reducers[player].around)
        self._sum_partial(problem)
        return found

    def _sum_partial(self, problem: Problem) -> None:
        learners = problem.learners.items()
        partial = [module.get_parameter(each) for name, module in learners for each in self.partial.get(name, ())]
        if partial:
            from sanbu.parallel.tensors import sum_gradients

            sum_gradients(partial, self.world.part("tensor").get_group())

    def _total(self, sums: Sums, pairs: Pairs) -> tuple[Sums, Pairs]:
        flat: dict[str, Tensor] = {f"sum/{name}": value for name, value in sums.items()}
        for name, (above, below) in pairs.items():
            flat |= {f"above/{name}": above, f"below/{name}": below}
        found = self.world.total(flat)
        totals = {name: found[f"sum/{name}"].float() for name in sums}
        return totals, {name: (found[f"above/{name}"], found[f"below/{name}"]) for name in pairs}
