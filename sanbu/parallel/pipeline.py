"""Pipeline parallelism of transformers: each rank has some layers; micro-batches follow each other through the ranks.

gpipe         all forward, then all backward                                           (Huang and others, 2019)
1f1b          one forward, one backward: fewer activations are kept                    (Narayanan and others, 2019)
interleaved   each rank has two groups of layers: half the bubble                      (Narayanan and others, 2021)
zero-bubble   the gradient of weights fills the gaps                                   (Qi and others, 2023)

torch.distributed.pipelining runs the schedules. A decoder is cut in place: it keeps the names of its weights, and what
other ranks have is removed. Called outside of a turn, it asks the ranks one after another, and all get the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from sanbu.config import SanbuError
from sanbu.layers.attention import Sight
from sanbu.machine import local
from sanbu.models.tokens.transformer import Decoder, keys_and_values, logits, see
from sanbu.noise import key
from sanbu.objectives.objective import add, add_pairs
from sanbu.optimizers.search import Pairs, Problem, Sums
from sanbu.parallel.world import World, gradient_of
from sanbu.space import Batch, row_count

SCHEDULES: dict[str, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero-bubble": ScheduleInterleavedZeroBubble,
}
GROUPS = {"gpipe": 1, "1f1b": 1, "interleaved": 2, "zero-bubble": 2}  # groups of layers on each rank


class Stage(nn.Module):
    """Some consecutive layers of a decoder; the first has the embedding, the last the norm and the head.

    `scope` and `seed` are set before a turn: what is entered around each forward pass, and what sets dropout.
    """

    def __init__(self, decoder: Decoder, number: int, count: int, blocks: Sequence[str]) -> None:
        super().__init__()
        self.number, self.first, self.last = number, number == 0, number == count - 1
        self.embedding = decoder.embedding if self.first else None
        self.blocks = nn.ModuleDict({name: decoder.blocks[name] for name in blocks})
        self.norm: Any = decoder.norm if self.last else None
        self.head: Any = decoder.head if self.last else None
        self.patterns = {block.attention.pattern for block in decoder.blocks.values()}
        self.scope: Callable[[], Any] = torch.enable_grad
        self.seed: Callable[[int], None] = lambda micro: None

    def forward(
        self,
        x: Tensor,
        micro: Tensor | None = None,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        sight: Sight | None = None,
        cache: dict[str, Any] | None = None,
    ) -> Tensor:
        """x: tokens_BT for the first stage, x_BTD for the others. Gives x_BTD, after the norm in the last stage.

        micro: the number of the micro-batch in a turn, with its tokens and positions; or else sight and cache, by the
        name of the block.
        """
        if sight is not None:
            return self.run(x, sight, cache)
        assert micro is not None and tokens is not None
        self.seed(int(micro[0]))
        if self.number:
            torch.manual_seed(key(torch.initial_seed(), "stage", self.number))
        with self.scope():
            return self.run(x, see(self.patterns, tokens, positions, None), None)

    def run(self, x: Tensor, sight: Sight, cache: dict[str, Any] | None) -> Tensor:
        """The layers. cache: by the name of the block."""
        if self.embedding is not None:
            x = self.embedding(x, sight.positions_BT)
        for name, block in self.blocks.items():
            x = block(x, sight, None if cache is None else cache[name])
        return x if self.norm is None else self.norm(x)


@dataclass
class Pipeline:
    """The stages of a decoder on this rank, and the schedule of a turn, by its number of micro-batches."""

    world: World
    decoder: Decoder
    stages: list[Stage]
    count: int
    width: int
    tied: bool
    schedules: dict[tuple[int, ...], Any] = field(default_factory=dict)

    @property
    def group(self) -> dist.ProcessGroup:
        """The ranks with the other layers."""
        return self.world.part("pipeline").get_group()

    # -- a turn -------------------------------------------------------------------------------------------------------

    def passes(self, problem: Problem) -> tuple[Sums, Pairs]:
        """Forward and backward of all micro-batches; the sums are those of the last stage, in all ranks."""
        batches = [*problem.parts(), *problem.idle]
        rows = row_count(batches[0])
        if row_count(batches[-1]) != rows or problem.idle:
            raise SanbuError(
                f"schedule.micro_batch: given {rows}, but the {row_count(problem.turn.batch)} rows of a rank must be"
                " equal micro-batches in a pipeline"
            )
        for stage in self.stages:
            stage.scope, stage.seed = problem.scope, problem.seed
        tokens, positions = problem.turn.batch["tokens"], problem.turn.batch.get("positions")
        sums: Sums = {}
        pairs: Pairs = {}
        schedule = self._schedule(len(batches), rows, tokens.shape[1], tokens.device)
        schedule._loss_fn = self._loss(problem, batches, sums, pairs)
        numbers = torch.arange(len(batches))
        shared: dict[str, Any] = {"micro": numbers, "tokens": tokens}
        shared |= {} if positions is None else {"positions": positions}
        last = {"target": numbers, "losses": []} if self.stages[-1].last else {}
        schedule.step(*([tokens] if self.stages[0].first else []), **last, **shared)
        return self._everywhere(sums, pairs)

    def _schedule(self, micro: int, rows: int, length: int, device: torch.device) -> Any:
        place = (micro, rows, length)
        if place not in self.schedules:
            shorter = length // (self.world.degrees.tensor if self.world.layout.sequence == "on" else 1)
            between = torch.empty(rows, shorter, self.width, device=device, requires_grad=True)
            tokens = torch.zeros(rows, length, dtype=torch.long, device=device)
            stages = [
                PipelineStage(
                    stage,
                    stage.number,
                    self.count,
                    device,
                    tokens if stage.first else between,
                    between,
                    group=self.group,
                )
                for stage in self.stages
            ]
            kind = SCHEDULES[self.world.layout.schedule]
            whole: Any = stages[0] if GROUPS[self.world.layout.schedule] == 1 else stages
            self.schedules[place] = kind(whole, micro, loss_fn=lambda output, target: output.sum(), scale_grads=False)
        return self.schedules[place]

    def _loss(self, problem: Problem, batches: list[Batch], sums: Sums, pairs: Pairs) -> Callable[..., Tensor]:
        """The loss of a micro-batch from what the last stage gives; adds to the sums."""

        def loss(hidden: Tensor, number: Tensor) -> Tensor:
            batch = batches[int(number[0])]
            told = Told(self.decoder, hidden, batch["tokens"])
            with problem.scope():
                found = problem.turn.loss({**problem.models, "model": told}, batch)
                terms = problem.terms(found.sums)
            add(sums, {name: term.detach().float() for name, term in terms.items()})
            add_pairs(pairs, found.metrics)
            total: Tensor = sum(terms.values(), torch.zeros(()))
            return total

        return loss

    def _everywhere(self, sums: Sums, pairs: Pairs) -> tuple[Sums, Pairs]:
        """What the last stage has found, in all stages."""
        held = [(sums, pairs)]
        last = dist.get_global_rank(self.group, dist.get_world_size(self.group) - 1)
        dist.broadcast_object_list(held, last, group=self.group)
        return held[0]

    def share_tied(self) -> None:
        """Sum the gradients of the embedding and of the head that is the same matrix, which lie on two ranks."""
        if not self.tied:
            return
        ends = self.world.ends
        first, last = self.stages[0].first, self.stages[-1].last
        if (first or last) and ends is not None:
            weight = self.decoder.embedding.tokens.weight if first else self.decoder.head.weight
            dist.all_reduce(local(gradient_of(weight)), group=ends)

    # -- outside of a turn --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def ask(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[Any] | None = None,
        readout: Callable[..., Tensor] = logits,
    ) -> Tensor:
        """What the whole decoder gives, without gradient, in all ranks."""
        patterns = self.stages[0].patterns
        sight = see(patterns, tokens_BT, positions_BT, cache)
        held = None if cache is None else dict(zip(self.decoder.blocks, cache, strict=True))
        x = tokens_BT
        for number in range(self.count):
            owner = number % self.world.degrees.pipeline
            mine: Any = next((stage for stage in self.stages if stage.number == number), None)
            if mine is not None:
                x = mine(x, sight=sight, cache=held)
                if mine.last:
                    x = readout(self.decoder.head, x)
                if hasattr(mine, "reshard"):
                    mine.reshard()
            x = self._from(owner, x if mine is not None else None, tokens_BT.device)
        return x

    def _from(self, owner: int, tensor: Tensor | None, device: torch.device) -> Tensor:
        """The tensor of one rank of the pipeline, in all of them."""
        source = dist.get_global_rank(self.group, owner)
        about = [None if tensor is None else (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))]
        dist.broadcast_object_list(about, source, group=self.group)
        shape, kind = about[0] or ((), "float32")
        sent = torch.empty(shape, dtype=getattr(torch, kind), device=device) if tensor is None else tensor.contiguous()
        dist.broadcast(sent, source, group=self.group)
        return sent

    def cache(self, rows: int, slots: int) -> list[Any]:
        """An empty KV cache of the layers on this rank."""
        weight = next(self.decoder.parameters())
        like = torch.zeros(0, dtype=self.decoder.cached or weight.dtype, device=weight.device)
        return [keys_and_values(block.attention, like, rows, slots) for block in self.decoder.blocks.values()]


@dataclass(frozen=True)
class Told:
    """The model in the last stage: gives what the pipeline has computed, and refuses other tokens."""

    decoder: Decoder
    hidden: Tensor
    tokens: Tensor

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        cache: Any = None,
        readout: Callable[..., Tensor] = logits,
    ) -> Tensor:
        if tokens.shape != self.tokens.shape or not torch.equal(tokens, self.tokens):
            raise SanbuError("layout.pipeline: the objective reads other tokens than those of the batch; allowed: 1")
        return readout(self.decoder.head, self.hidden)


def cut(world: World, model: nn.Module) -> Pipeline:
    """Cut a decoder in place: keep the layers of this rank. Raises SanbuError for what cannot be cut."""
    ranks = world.degrees.pipeline
    if type(model) is not Decoder:
        kind = type(model).__name__
        raise SanbuError(f"layout.pipeline: given {ranks}, but {kind} cannot be cut into stages; allowed: 1")
    count, names = ranks * GROUPS[world.layout.schedule], list(model.blocks)
    if len(names) < count:
        raise SanbuError(f"layout.pipeline: {count} stages are needed, but the model has {len(names)} layers")
    width = next(iter(model.blocks.values())).attention.query.in_features
    tied = model.head.weight is model.embedding.tokens.weight
    bounds = [len(names) * number // count for number in range(count + 1)]
    numbers = range(world.place.stage, count, ranks)
    stages = [Stage(model, number, count, names[bounds[number] : bounds[number + 1]]) for number in numbers]
    kept = {name for stage in stages for name in stage.blocks}
    for name in names:
        if name not in kept:
            del model.blocks[name]
    if not stages[0].first:
        model.embedding = None
    if not stages[-1].last:
        model.norm, model.head = None, None  # type: ignore[assignment]
    pipeline = Pipeline(world, model, stages, count, width, tied)
    model.forward = pipeline.ask  # type: ignore[method-assign]
    model.cache = pipeline.cache  # type: ignore[method-assign]
    return pipeline
