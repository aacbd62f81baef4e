"""Truncated backpropagation through time: a row begins with the state in which the row before it ended.

The rows follow one another in lanes (data.lanes): row r continues row r - lanes. The state that a row begins with is
computed by the weights before the update, without a gradient (Williams and Peng, 1990), and belongs to the round's
experience. Held-out rows begin with an empty state.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.layers.state import State
from sanbu.objectives.next_token import as_loss, count_targets, cross_entropy
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.space import Batch, Models, row_count


class CarriedNextToken(ObjectiveConfig):
    """Cross-entropy of the next token, with the state of a recurrent model carried from row to row."""

    kind: Literal["next-token-carried"] = "next-token-carried"
    families: ClassVar[tuple[str, ...]] = ("tokens",)

    def build(self) -> Objective:
        return Objective(loss, count_targets, attach=lambda model: {"carried": Carried()}, experience=experience)


class Carried(nn.Module):
    """The states at the end of the last round, by name; empty before the first."""

    fitted = True  # buffers take the shapes of what is loaded

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("states", torch.zeros(0, 0))


def experience(round: Round) -> Batch:
    """The batch with the state that each row begins with; the state that it ends with is kept for the next round."""
    model, carried, batch = round.models["model"], round.models["carried"], round.batch
    rows = row_count(batch)
    cache = empty(model, rows)
    if not round.learning:
        return {**batch, "states": flat(cache)}
    check_lanes(batch, rows)
    before = flat(cache)
    if len(carried.states) == rows:
        before = torch.where(batch["continues"][:, None], carried.states, before)
    fill(cache, before)
    positions = torch.ones_like(batch["tokens"])  # no document begins within a row
    model(batch["tokens"], positions, cache)
    carried.states = flat(cache)
    return {**batch, "states": before}


def check_lanes(batch: Batch, rows: int) -> None:
    """Raise SanbuError unless the rows are one piece of every lane."""
    if "lane" not in batch:
        raise SanbuError(f"data.lanes: given 0, but the objective 'next-token-carried' needs {rows}, as schedule.batch")
    if batch["lane"].tolist() != list(range(rows)):
        raise SanbuError(f"schedule.batch: given {rows}, but it must be data.lanes, so that a step has a row per lane")


def loss(models: Models, batch: Batch) -> Loss:
    """The summed cross-entropy from the states of the batch."""
    model = models["model"]
    cache = empty(model, row_count(batch))
    fill(cache, batch["states"])
    logits_BTV = model(batch["tokens"], torch.ones_like(batch["tokens"]), cache)
    return as_loss(cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten()), batch)


def empty(model: Any, rows: int) -> list[State]:
    """Empty states. Raises SanbuError for a model without a state of fixed size."""
    cache = model.cache(rows, 1)
    if not all(isinstance(layer, State) for layer in cache):
        raise SanbuError("objective: 'next-token-carried' needs a recurrent model; allowed: rnn, gru, lstm, mingru")
    return cache


def flat(cache: list[State]) -> Tensor:
    """All states as one matrix, a row for each row."""
    return torch.cat([tensor.flatten(1) for layer in cache for tensor in layer.tensors], 1)


def fill(cache: list[State], states: Tensor) -> None:
    """Put the columns of such a matrix into the states."""
    place = 0
    for layer in cache:
        found = []
        for tensor in layer.tensors:
            size = tensor[0].numel()
            found.append(states[:, place : place + size].view_as(tensor))
            place += size
        layer.tensors = tuple(found)
