"""A recipe: the five choices, the schedule of the run and the machine it asks for."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import Field, model_validator

from sanbu.config import (
    Auto,
    Choice,
    Config,
    ConfigError,
    Positive,
    change,
    choice_of,
    kind_of,
    nearest,
    override,
    plain,
)
from sanbu.data.data import DataConfig
from sanbu.layers.average import AverageConfig
from sanbu.machine import MachineConfig
from sanbu.models.model import ModelConfig
from sanbu.objectives.objective import ObjectiveConfig
from sanbu.optimizers.search import OptimizerConfig
from sanbu.parallel.layout import Layout
from sanbu.strategies.strategy import StrategyConfig


class Schedule(Config):
    """How many rounds, how many rows, and how often to evaluate, sample and save."""

    steps: int = Field(1000, ge=0, description="training steps; one step is one round")
    batch: Positive | Literal["auto", "all"] = Field("auto", description="rows per step; all: every row of the data")
    micro_batch: Positive | Auto = Field(
        "auto", description="rows per forward pass (gradient accumulation); does not change the result"
    )
    seed: int = Field(0, ge=0, description="seed for initial weights and all sampling; row order is fixed by the data")
    evaluate_every: int = Field(0, ge=0, description="steps between evaluations on held-out rows; 0 disables")
    evaluate_rows: int = Field(64, ge=1, description="held-out rows per evaluation")
    sample_every: int = Field(0, ge=0, description="steps between samples; 0 disables")
    samples: int = Field(1, ge=1, le=100_000, description="samples drawn each time")
    checkpoint_every: int = Field(500, ge=0, description="steps between checkpoints; 0 only at the end")
    saving: Literal["wait", "background"] = Field(
        "wait", description="while a checkpoint is written, training waits, or goes on (takes memory for a copy)"
    )
    patience: int = Field(
        0,
        ge=0,
        description="stop after this many evaluations without improvement and keep the best weights; 0 disables",
    )
    keep: int = Field(2, ge=1, description="number of latest checkpoints to keep; the best is kept too")
    rewinds: int = Field(
        0, ge=0, description="times to go back to the last checkpoint and skip the batches since when a loss is NaN"
    )
    spike: float = Field(
        0.0, ge=0, description="rise of the loss above its median of 32 steps that is treated like NaN; 0 disables"
    )


class Recipe(Config):
    """Data, function set, goodness, search, strategy: everything that makes a run."""

    name: str = Field(pattern=r"^\w[\w .+-]*$", max_length=100, description="name of the system, and of its run folder")
    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    strategy: StrategyConfig
    average: AverageConfig | None = Field(None, description="a moving average of the weights to sample from")
    players: dict[str, OptimizerConfig] = Field({}, description="optimizer of each further player, where it differs")
    parents: dict[str, str] = Field(
        {}, description="run folders of other models: model (initial weights), reference, reward, ..."
    )
    schedule: Schedule = Schedule()
    machine: MachineConfig = MachineConfig()
    layout: Layout = Layout()

    @model_validator(mode="after")
    def _together(self) -> Self:
        space = self.data.space()
        self.model.check(space)
        if "guide" not in self.parents:
            self.strategy.check(space)
        path = getattr(self.model, "path", None)
        if path is not None:
            self.strategy.check_path(path)
        self._fits("objective", self.objective)
        self._fits("strategy", self.strategy)
        self._found_by(self.optimizer)
        return self

    def _found_by(self, search: OptimizerConfig) -> None:
        """The search must be one that can find a function without gradient."""
        allowed, given = self.model.searches, kind_of(search)
        if allowed and given not in allowed:
            needed = ", ".join(allowed)
            raise ValueError(
                f"optimizer: given {given!r}, but the model {kind_of(self.model)!r} has no gradient; allowed: {needed}"
            )

    def _fits(self, slot: str, part: ObjectiveConfig | StrategyConfig) -> None:
        """Objective and strategy must be able to call the model."""
        family = self.model.family
        if not family or not part.families or family in part.families:
            return
        base = ObjectiveConfig if isinstance(part, ObjectiveConfig) else StrategyConfig
        allowed = ", ".join(name for name, kind in base.kinds().items() if family in kind.families)
        raise ValueError(
            f"{slot}: given {kind_of(part)!r}, but the model {kind_of(self.model)!r} needs one of: {allowed}"
        )

    def __repr__(self) -> str:
        """A line for each choice: its kind, and the fields that are not its defaults."""
        lines = [f"Recipe {self.name!r}, {self.schedule.steps:,} steps"]
        for slot in ("data", "model", "objective", "optimizer", "strategy"):
            lines.append(f"  {slot:9}  {describe(getattr(self, slot))}")
        return "\n".join(lines)

    __str__ = __repr__

    def change(self, *overrides: str, **fields: Any) -> Recipe:
        """This recipe with changes, validated once.

        overrides: texts such as "model=llama" or "model.width=64", as on the command line. fields: of the recipe or
        of its schedule, as in change(steps=10, average=None, data=Text(...)); a slot also takes the name of a kind.
        Raises ConfigError naming what was given, what is allowed and the nearest match.
        """
        schedule = {name: fields.pop(name) for name in list(fields) if name in Schedule.model_fields}
        unknown = next((name for name in fields if name not in Recipe.model_fields), None)
        if unknown is not None:
            known = [*Recipe.model_fields, *Schedule.model_fields]
            raise ConfigError(f"{unknown}: no such field of a recipe or its schedule{nearest(unknown, known)}")
        if schedule:
            fields["schedule"] = change(fields.get("schedule", self.schedule), schedule, "schedule")
        changed = change(self, fields) if fields else self
        return override(changed, overrides) if overrides else changed

    def resolve(self) -> Recipe:
        """This recipe with every `auto` of batch size and learning rate computed from the model's width."""
        elements = math.prod(self.data.space().shape)
        batch = self.schedule.batch if self.schedule.batch != "auto" else auto_batch(self.model.dial(), elements)
        batch = self.data.build().rows if batch == "all" else batch
        micro = self.schedule.micro_batch if self.schedule.micro_batch != "auto" else auto_micro_batch(elements)
        rate = auto_learning_rate(self.model.dial())
        return self.change(
            data=self.data.resolve(),
            batch=batch,
            micro_batch=min(micro, batch),
            optimizer=self.optimizer.resolve(rate),
            players={name: optimizer.resolve(rate) for name, optimizer in self.players.items()},
        )


def describe(value: Any) -> str:
    """A config as its kind and the fields that are not its defaults; other values as an override gives them."""
    if isinstance(value, tuple) and any(isinstance(part, Config) for part in value):
        if len(value) > 3:
            return f"{len(value)} of them"
        return f"[{', '.join(map(describe, value))}]"
    if not isinstance(value, Config):
        return plain(value)
    given = []
    for name, field in type(value).model_fields.items():
        part = getattr(value, name)
        if name != "kind" and part != field.get_default(call_default_factory=True):
            given.append(f"{name}={describe(part)}")
    kind = kind_of(type(value)) or type(value).__name__
    return f"{kind}({', '.join(given)})" if given else kind


def walk(config: Config, prefix: str = "") -> Iterator[tuple[str, Any, str, str]]:
    """Every field as (path, value, type, description): what `sanbu show` prints and an override accepts."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        path = f"{prefix}{name}"
        if isinstance(value, Config):
            if (kind := kind_of(value)) is not None:
                base = choice_of(field.annotation)
                allowed = "|".join(base.kind_names()) if base else "kind"
                yield path, kind, allowed, (type(value).__doc__ or "").split("\n")[0]
            yield from walk(value, path + ".")
        elif name != "kind":
            yield path, value, type_name(field.annotation), field.description or ""


def type_name(annotation: Any) -> str:
    """What a field accepts, in a few words."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return "|".join(type_name(part) for part in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Choice):
        return "|".join(annotation.kind_names())
    return {"NoneType": "none"}.get(name := getattr(annotation, "__name__", str(annotation)), name)


def auto_learning_rate(width: int) -> float:
    """Adam's peak rate from the width: 6e-4 (768 / width)^0.83, a fit to Table 2.1 of GPT-3 (Brown and others, 2020).

    It gives 2.7e-3 at width 128, where tuning by hand on a character model found 3e-3.
    """
    return float(f"{6e-4 * (768 / width) ** 0.83:.2g}")


def auto_batch(width: int, elements: int) -> int:
    """Rows a round from the width: 2^19 tokens at 768, growing with its power 2/3 above (Table 2.1 of GPT-3).

    Below, the power is 5/2: 6k tokens at width 128, what a character model takes on a CPU without loss at equal
    tokens.
    """
    tokens = 2**19 * (width / 768) ** (2 / 3 if width > 768 else 5 / 2)
    return max(1, round(tokens / elements))


def auto_micro_batch(elements: int) -> int:
    """At most about 16k tokens at a time through the model."""
    return max(1, 2**14 // elements)
