"""A recipe: the five choices, the schedule of the run and the machine it asks for. No torch here."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sanbu.config import Config, kind_of
from sanbu.data import chat_kinds
from sanbu.data.kinds import DataConfig
from sanbu.models import adapted
from sanbu.models.kinds import ModelConfig
from sanbu.objectives import alignment
from sanbu.objectives.kinds import ObjectiveConfig
from sanbu.optimizers.kinds import Adam, AdamW, AverageConfig, Muon, OptimizerConfig
from sanbu.strategies.kinds import StrategyConfig

KINDS_BESIDE = (chat_kinds, adapted, alignment)  # imported so that a slot knows their kinds
Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]


class Schedule(Config):
    """How long, how much at once, and how often to look."""

    steps: int = Field(1000, ge=0, description="rounds of the run")
    batch: Positive | Auto = Field("auto", description="rows a round")
    micro_batch: Positive | Auto = Field("auto", description="rows at a time through the model; the result is the same")
    seed: int = Field(0, ge=0, description="of weights and of every draw; the order of rows is the data's own")
    evaluate_every: int = Field(0, ge=0, description="steps between looks at held-out rows; 0 never")
    evaluate_rows: int = Field(64, ge=1, description="held-out rows a look reads")
    sample_every: int = Field(0, ge=0, description="steps between samples; 0 never")
    samples: int = Field(1, ge=1, description="samples a time")
    checkpoint_every: int = Field(500, ge=0, description="steps between checkpoints; 0 only at the end")
    patience: int = Field(
        0, ge=0, description="looks without gain after which a run stops; its best weights are kept then; 0 never"
    )
    keep: int = Field(2, ge=1, description="latest checkpoints kept; the best is kept besides")


class MachineConfig(Config):
    """What the run asks of the machine; `auto` measures."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of the forward and backward pass")
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile the models")
    recompute: Literal["off", "on"] = Field(
        "off", description="activations of each block again in the backward pass: slower, less memory"
    )
    threads: Positive | Auto = Field("auto", description="CPU threads of one operation")


class Recipe(Config):
    """Data, function set, goodness, search, strategy: everything that makes a run."""

    name: str
    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    strategy: StrategyConfig
    average: AverageConfig | None = Field(None, description="a moving average of the weights to sample from")
    players: dict[str, OptimizerConfig] = Field(
        {}, description="the search of each further player, where it is not the same"
    )
    parents: dict[str, str] = Field(
        {}, description="run folders whose models take part: model (start weights), reference, ..."
    )
    schedule: Schedule = Schedule()
    machine: MachineConfig = MachineConfig()

    @model_validator(mode="after")
    def _together(self) -> Self:
        space = self.data.space()
        self.model.check(space)
        if "guide" not in self.parents:
            self.strategy.check(space)
        self._fits("objective", self.objective, ObjectiveConfig)
        self._fits("strategy", self.strategy, StrategyConfig)
        return self

    def _fits(self, slot: str, part: Config, base: type[ObjectiveConfig] | type[StrategyConfig]) -> None:
        """Objective and strategy must be able to call the model."""
        family = self.model.family
        wanted = {name: kind.families for name, kind in base.kinds().items()}
        mine = kind_of(type(part))
        if family and mine in wanted and wanted[mine] and family not in wanted[mine]:
            allowed = ", ".join(name for name, families in wanted.items() if family in families)
            raise ValueError(f"{slot}: given {mine!r}, but the model {kind_of(type(self.model))!r} needs one of: {allowed}")

    def resolve(self) -> Recipe:
        """This recipe with every `auto` of batch and learning rate turned into the number its one dial, the width, gives."""
        elements = math.prod(self.data.space().shape)
        batch = self.schedule.batch if self.schedule.batch != "auto" else auto_batch(self.model.dial(), elements)
        micro = self.schedule.micro_batch if self.schedule.micro_batch != "auto" else auto_micro_batch(elements)
        rate = auto_learning_rate(self.model.dial())
        return self.model_copy(
            update={
                "data": self.data.resolve(),
                "schedule": self.schedule.model_copy(update={"batch": batch, "micro_batch": min(micro, batch)}),
                "optimizer": with_rate(self.optimizer, rate),
                "players": {name: with_rate(optimizer, rate) for name, optimizer in self.players.items()},
            }
        )


def auto_learning_rate(width: int) -> float:
    """Adam's peak rate from the width: 6e-4 (768 / width)^0.83, a fit to Table 2.1 of GPT-3 (Brown and others, 2020).

    It gives 2.7e-3 at width 128, where tuning by hand on a character model found 3e-3.
    """
    return float(f"{6e-4 * (768 / width) ** 0.83:.2g}")


def auto_batch(width: int, elements: int) -> int:
    """Rows a round from the width: 2^19 tokens at 768, growing with its power 2/3 above (Table 2.1 of GPT-3).

    Below, the power is 5/2: 6k tokens at width 128, what a character model takes on a CPU without loss at equal tokens.
    """
    tokens = 2**19 * (width / 768) ** (2 / 3 if width > 768 else 5 / 2)
    return max(1, round(tokens / elements))


def auto_micro_batch(elements: int) -> int:
    """At most about 16k tokens at a time through the model."""
    return max(1, 2**14 // elements)


def with_rate(optimizer: OptimizerConfig, rate: float) -> OptimizerConfig:
    """An optimizer with its `auto` learning rate filled in."""
    if isinstance(optimizer, Muon):
        return optimizer.model_copy(update={"rest": with_rate(optimizer.rest, rate)})
    if isinstance(optimizer, (Adam, AdamW)) and optimizer.learning_rate == "auto":
        return optimizer.model_copy(update={"learning_rate": rate})
    return optimizer
