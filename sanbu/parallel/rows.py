"""Rows that the data ranks divide among them; each rank gets all results, in the order of one process.

Weights that are divided too (ZeRO-2 and 3) are gathered by calls that all ranks make together. So all ranks make the
same number of calls. Where the number depends on the rows, as in drawing, what was gathered is kept to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sanbu.parallel.divide import Divided
from sanbu.parallel.world import World
from sanbu.space import Batch, Draft, Models, row_count
from sanbu.strategies.strategy import Strategy, draw

A = TypeVar("A")
B = TypeVar("B")
Draw = Callable[[Batch, Tensor], Draft]


def over_rows(world: World, work: Callable[[A], Batch], parts: Sequence[A]) -> Batch:
    """The rows of work(part) of all parts. A rank with fewer parts than another computes the last one again."""
    ranks, made = world.degrees.data, []
    for number in range(world.place.data, len(parts) + -len(parts) % ranks, ranks):
        found = work(parts[min(number, len(parts) - 1)])
        rows = row_count(found) if number < len(parts) else 0
        made.append({"part": torch.full((rows,), number)} | {name: found[name][:rows] for name in sorted(found)})
    whole = {name: world.gather_rows(torch.cat([each[name] for each in made])) for name in made[0]}
    order = whole.pop("part").argsort(stable=True)
    return {name: values[order.to(values.device)] for name, values in whole.items()}


def table(batch: Batch) -> Batch:
    """The rows of a batch by their number, the column `row`, each once."""
    row, values = batch["row"], {name: tensor for name, tensor in batch.items() if name != "row"}
    order = row.argsort(stable=True)
    first = torch.cat((order.new_ones(1, dtype=torch.bool), row[order].diff() > 0))
    return {name: tensor[order[first]] for name, tensor in values.items()}


def over_parts(world: World, work: Callable[[A], B], parts: Sequence[A], alike: int) -> list[B]:
    """work(part) of all parts. The first `alike` parts take the same number of calls each; every rank does the rest.

    Results go through pickle between the processes of this job.
    """
    ranks = world.degrees.data
    divided = alike - alike % ranks
    own = {number: work(parts[number]) for number in range(world.place.data, divided, ranks)}
    whole = {number: found for each in world.of_all(own) for number, found in each.items()} if ranks > 1 else own
    return [whole[number] if number < divided else work(parts[number]) for number in range(len(parts))]


def drawing(divided: Divided, strategy: Strategy, models: Models) -> Draw:
    """A function that draws rows; ranks may draw different numbers of them."""

    def own(condition: Batch, seeds: Tensor) -> Draft:
        with divided.keep_gathered(models):
            return draw(strategy, models, condition, seeds)

    return own


def shared_drawing(divided: Divided, strategy: Strategy, models: Models) -> Draw:
    """A function that draws rows, which are the same on all ranks: each draws a part and gets all."""
    world, own = divided.world, drawing(divided, strategy, models)

    def together(condition: Batch, seeds: Tensor) -> Draft:
        if len(seeds) % world.degrees.data:
            return own(condition, seeds)
        mine = world.mine({**condition, "seeds": seeds})
        draft = own({name: mine[name] for name in condition}, mine["seeds"])
        gather = world.gather_rows
        return Draft(
            gather(draft.sample),
            gather(draft.committed),
            gather(draft.done),
            gather(draft.evaluations),
            draft.stage,
            {name: gather(draft.record[name]) for name in sorted(draft.record)},
        )

    return together if world.degrees.data > 1 else own
