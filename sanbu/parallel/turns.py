"""What the processes of a job do together in a turn: counts, passes, sums, clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from sanbu.objectives.objective import Turn
from sanbu.optimizers.gradient import parameters
from sanbu.optimizers.search import ONE, Pairs, Problem, Ranks, Sums, one_after_another
from sanbu.parallel.divide import Divided
from sanbu.parallel.replicas import Reducer
from sanbu.parallel.world import World
from sanbu.space import Batch, row_count


def ranks_of(divided: Divided) -> Ranks:
    """The functions of a search's problem, for the layout."""
    world = divided.world
    if world.alone:
        return ONE
    from sanbu.parallel.clip import clip_over_ranks

    return Ranks(
        partial(count, world),
        partial(passes, divided),
        partial(total, world),
        partial(clip_over_ranks, world, divided.twice),
        freezes=world.layout.zero < 2,
    )


@dataclass(frozen=True)
class Part:
    """What a rank computes of a turn.

    idle: micro-batches that count nothing, so that all ranks make the same number of passes.
    """

    turn: Turn
    idle: tuple[Batch, ...] = ()

    def micro_batches(self, size: int) -> int:
        """The number of micro-batches of up to so many rows, the same on all ranks."""
        return math.ceil(row_count(self.turn.batch) / size) + len(self.idle)


def own_part(world: World, turn: Turn, size: int) -> Part:
    """The part of this rank of a turn whose rows are the same on all ranks, for micro-batches of up to `size` rows."""
    mine = Part(replace(turn, batch=world.mine(turn.batch)))
    most = math.ceil(math.ceil(row_count(turn.batch) / world.degrees.data) / size)
    row = {name: tensor[:1] for name, tensor in turn.batch.items()}
    return replace(mine, idle=(row,) * (most - mine.micro_batches(size)))


def count(world: World, turn: Turn) -> dict[str, float]:
    """The denominators over all rows."""
    counts = {name: torch.tensor(value, dtype=torch.float64) for name, value in turn.count(turn.batch).items()}
    return {name: float(found) for name, found in world.total(counts).items()}


def passes(divided: Divided, problem: Problem) -> tuple[Sums, Pairs]:
    """Forward and backward passes of this rank's rows, and the sums of gradients over ranks."""
    degrees, zero = divided.world.degrees, divided.world.layout.zero
    pipeline = divided.pipelines.get("model/0")
    work = one_after_another if pipeline is None else pipeline.passes
    if zero >= 2 or degrees.data * degrees.context == 1:
        found = work(problem)
        divided.give_back(problem.models)
    elif pipeline is None:
        found = one_after_another(problem, reducer_of(divided, problem).around)
    else:
        found = work(problem)
        with reducer_of(divided, problem).around(True):
            pass
    sum_partial(divided, problem)
    if pipeline is not None:
        pipeline.share_tied()
    return found


def reducer_of(divided: Divided, problem: Problem) -> Reducer:
    """What sums the gradients of the player over the rows."""
    player = problem.turn.player
    if player not in divided.reducers:
        learning = [parameter for parameter in parameters(problem.learners) if parameter.requires_grad]
        divided.reducers[player] = Reducer(learning, divided.world.batch)
    return divided.reducers[player]


def sum_partial(divided: Divided, problem: Problem) -> None:
    """Sum the gradients of parameters that see a part of the heads or positions, over the tensor ranks."""
    found = []
    for model, module in problem.learners.items():
        held = dict(module.named_parameters())
        found += [held[name] for name in divided.partial.get(model, ()) if name in held]
    if found:
        from sanbu.parallel.tensors import sum_gradients

        sum_gradients(found, divided.world.part("tensor").get_group())


def total(world: World, sums: Sums, pairs: Pairs) -> tuple[Sums, Pairs]:
    """The terms of the loss and the metrics over all rows."""
    flat: dict[str, Tensor] = {f"sum/{name}": value for name, value in sums.items()}
    for name, (above, below) in pairs.items():
        flat |= {f"above/{name}": above, f"below/{name}": below}
    found = world.total(flat)
    terms = {name: found[f"sum/{name}"].float() for name in sums}
    return terms, {name: (found[f"above/{name}"], found[f"below/{name}"]) for name in pairs}
