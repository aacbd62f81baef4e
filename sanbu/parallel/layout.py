"""A layout: how many ranks share the rows, the states, the matrices, the positions and the layers of a run.

    ranks = pipeline x data x context x tensor

data      ranks that read different rows (data parallelism)
zero      what is divided over `shard` of the data ranks: 1 the optimizer's state, 2 also gradients, 3 also weights
          (Rajbhandari and others, 2020); shard < data is hybrid sharding
tensor    ranks that hold a part of each matrix (Shoeybi and others, 2019); `sequence` divides the activations between
          the matrices by position (Korthikanti and others, 2022)
context   ranks that hold a part of the positions of a row (Ulysses; Jacobs and others, 2023)
pipeline  ranks that hold a part of the layers (Huang and others, 2019; Narayanan and others, 2019, 2021)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from sanbu.config import Auto, Config, ConfigError, Positive

Schedule = Literal["gpipe", "1f1b", "interleaved", "zero-bubble"]


class Layout(Config):
    """How a run is divided over processes, one per device."""

    data: Positive | Auto = Field("auto", description="ranks that read different rows; auto: all that are left")
    zero: Literal[0, 1, 2, 3] = Field(0, description="divide over ranks: 1 optimizer state, 2 gradients, 3 weights")
    shard: Positive | Auto = Field("auto", description="data ranks that zero divides over; auto: all of them")
    tensor: int = Field(1, ge=1, description="ranks that hold a part of each matrix")
    sequence: Literal["on", "off"] = Field("off", description="with tensor: divide activations by position too")
    context: int = Field(1, ge=1, description="ranks that hold a part of the positions of a row")
    pipeline: int = Field(1, ge=1, description="ranks that hold a part of the layers")
    schedule: Schedule = Field("1f1b", description="order of the micro-batches in the pipeline")
    timeout: float = Field(600.0, gt=0, description="seconds after which a rank that does not answer is given up")

    def dividing(self) -> dict[str, Any]:
        """The fields that divide something."""
        values = self.model_dump(exclude_defaults=True)
        return {name: value for name, value in values.items() if value != 1 or name == "zero"}

    @property
    def by_zero_alone(self) -> bool:
        """Whether weights are divided, and by ZeRO alone: then no rank builds a whole model."""
        return self.zero >= 2 and self.tensor == self.pipeline == 1

    def processes(self) -> int:
        """The ranks that the recipe asks for by itself, without those of a job that is running."""
        data = self.data if self.data != "auto" else (self.shard if self.shard != "auto" else 1)
        return data * self.context * self.tensor * self.pipeline

    def degrees(self, world: int) -> Degrees:
        """The degrees in a world of so many processes. Raises ConfigError if they do not multiply to it."""
        rest = self.context * self.tensor * self.pipeline
        data = self.data if self.data != "auto" else max(1, world // rest)
        if data * rest != world:
            given = f"{self.pipeline} pipeline x {data} data x {self.context} context x {self.tensor} tensor"
            raise ConfigError(f"layout: given {given} = {data * rest} ranks, but there are {world} processes")
        shard = self.shard if self.shard != "auto" else (data if self.zero else 1)
        if data % shard:
            allowed = ", ".join(str(number) for number in range(1, data + 1) if data % number == 0)
            raise ConfigError(f"layout.shard: given {shard}, but there are {data} data ranks; allowed: {allowed}")
        if shard > 1 and not self.zero:
            raise ConfigError(f"layout.shard: given {shard}, but layout.zero=0 divides nothing; allowed zero: 1, 2, 3")
        if self.zero == 1 and shard != data:
            raise ConfigError(f"layout.shard: given {shard}, but layout.zero=1 divides over all {data} data ranks")
        if self.context > 1 and (self.pipeline > 1 or self.sequence == "on"):
            raise ConfigError(f"layout.context: given {self.context}, which goes with neither pipeline nor sequence=on")
        return Degrees(data, shard, self.tensor, self.context, self.pipeline)


@dataclass(frozen=True)
class Degrees:
    """The degrees of a layout as numbers. Ranks are numbered pipeline first, then data, context, shard, tensor.

    So the ranks of a tensor group are neighbours, and those of a pipeline are far from each other.
    """

    data: int
    shard: int
    tensor: int
    context: int
    pipeline: int

    @property
    def replicas(self) -> int:
        """Ranks that hold the same weights: those of different rows and positions, but for the sharded ones."""
        return self.data // self.shard * self.context

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.pipeline * self.data * self.context * self.tensor

    @property
    def mesh(self) -> tuple[int, int, int, int]:
        """The shape of the mesh: pipeline, replicas, shard, tensor."""
        return self.pipeline, self.replicas, self.shard, self.tensor

    def place(self, rank: int) -> Place:
        """The place of a rank."""
        rest, tensor = divmod(rank, self.tensor)
        rest, shard = divmod(rest, self.shard)
        stage, replica = divmod(rest, self.replicas)
        block, context = divmod(replica, self.context)
        return Place(block * self.shard + shard, context, tensor, stage)

    def rank(self, place: Place) -> int:
        """The rank at a place."""
        block, shard = divmod(place.data, self.shard)
        replica = block * self.context + place.context
        return ((place.stage * self.replicas + replica) * self.shard + shard) * self.tensor + place.tensor

    def describe(self) -> str:
        """The degrees above 1 in a few words."""
        names = ("data", "shard", "tensor", "context", "pipeline")
        return ", ".join(f"{name} {getattr(self, name)}" for name in names if getattr(self, name) > 1) or "one process"


@dataclass(frozen=True)
class Place:
    """Where a rank stands: which rows, positions, part of the matrices, and layers it has."""

    data: int
    context: int
    tensor: int
    stage: int
