"""The memory of the fullest rank of a layout, and the layouts with which a recipe fits.

Weights, gradients and optimizer states are counted parameter by parameter: which stage has it, whether its matrix is
divided, what ZeRO divides. Activations are those of one process, by the layers of a stage and its micro-batches in
flight; of a transformer layer, 24 of 34 parts are divided over tensor ranks, with `sequence` all (Korthikanti, 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from sanbu.config import ConfigError
from sanbu.memory.parts import Parts
from sanbu.memory.parts import size as size_of
from sanbu.memory.peak import shapes_alone
from sanbu.memory.training import Hollow, count_activations, count_kept, number
from sanbu.models.tokens.transformer import Decoder
from sanbu.parallel.layout import Degrees, Layout
from sanbu.parallel.tensors import parts
from sanbu.recipe import Recipe

DIVIDED = ("query", "key", "value", "out", "gate", "up", "down", "tokens", "head")  # modules whose matrix is divided
INSIDE = 24 / 34  # of the activations of a transformer layer: those between its divided matrices
GROUPS = {"interleaved": 2, "zero-bubble": 2}  # groups of layers on each rank
NODE = 8  # devices that are close enough to share matrices


@dataclass(frozen=True)
class Counted:
    """A recipe in one process, from which every layout is computed. parameters: bytes by name, of the model.

    heads: what the tensor ranks of a transformer must divide; 0 for a model without a plan.
    """

    recipe: Recipe
    parameters: Mapping[str, int]
    heads: int
    others: int
    ratio: float
    activations: int

    @classmethod
    def of(cls, recipe: Recipe, parents: Mapping[str, Recipe], precision: torch.dtype = torch.float32) -> Counted:
        """Count a resolved recipe. others: weights that no player changes. ratio: of optimizer states to weights."""
        weights, gradients, states = count_kept(recipe, parents)
        with shapes_alone():
            model = Hollow.build(recipe, parents).models["model"]
            sizes = {name: each.numel() * each.element_size() for name, each in model.named_parameters()}
        heads = common_heads(model) if isinstance(model, Decoder) else 0
        activations = count_activations(recipe, parents, precision)
        return cls(recipe, sizes, heads, weights - sum(sizes.values()), states / max(1, gradients), activations)

    @property
    def weights(self) -> int:
        """Bytes of all weights of one process."""
        return sum(self.parameters.values()) + self.others

    def rank(self, layout: Layout, degrees: Degrees) -> Parts:
        """The memory of the fullest rank."""
        stages = [0.0] * degrees.pipeline
        block = 0.0
        for name, size in self.parameters.items():
            part = size / degrees.tensor if any(word in DIVIDED for word in name.split(".")) else size
            stages[self.stage_of(name, layout, degrees)] += part
            block += part if name.startswith("blocks.0.") else 0
        weights, spread, rollouts = max(stages), degrees.shard, self.recipe.objective.rollouts
        held = {
            0: (weights, weights, weights),
            1: (weights, weights, weights / spread),
            2: (weights + weights / spread, weights / spread, weights / spread),
            3: (weights / spread + (weights if rollouts else 2 * block), weights / spread, weights / spread),
        }[layout.zero]
        others = self.others / (spread if layout.zero >= 2 else 1)
        activations = round(self.activations * self.share(layout, degrees))
        return Parts(round(held[0] + others), round(held[1]), round(held[2] * self.ratio), activations)

    def stage_of(self, name: str, layout: Layout, degrees: Degrees) -> int:
        """The rank of the pipeline that has a parameter."""
        words = name.split(".")
        if "blocks" not in words:
            return 0 if words[0] == "embedding" else degrees.pipeline - 1
        layers, count = self.layers, degrees.pipeline * GROUPS.get(layout.schedule, 1)
        place = int(words[words.index("blocks") + 1])
        stage = next(number for number in range(count) if place < layers * (number + 1) // count)
        return stage % degrees.pipeline

    @property
    def layers(self) -> int:
        """The number of layers."""
        return int(getattr(self.recipe.model, "layers", 1))

    def share(self, layout: Layout, degrees: Degrees) -> float:
        """The part of the activations of one process that a rank has at once."""
        micro = number(self.recipe.schedule.micro_batch)
        local = max(1, number(self.recipe.schedule.batch) // degrees.data)
        flying = 1 if degrees.pipeline == 1 else min(-(-local // micro), degrees.pipeline)
        matrices = 1 / degrees.tensor if layout.sequence == "on" else 1 - INSIDE + INSIDE / degrees.tensor
        return min(1.0, local / micro) * flying / degrees.pipeline * matrices / degrees.context


def common_heads(model: Decoder) -> int:
    """The largest number that divides the heads of queries and keys, and the hidden units, of every layer."""
    found = 0
    for _, attention, mlp in parts(model):
        widths = (each.out_features // attention.head_width for each in (attention.query, attention.key))
        found = math.gcd(found, *widths, mlp.up.out_features)
    return found


def layouts(counted: Counted, devices: int) -> Iterator[tuple[Layout, Degrees]]:
    """The layouts that are possible on so many devices, from the simplest to the most divided."""
    heads, layers, rows = counted.heads, counted.layers, number(counted.recipe.schedule.batch)
    for pipeline in divisors(devices):
        for tensor in divisors(devices // pipeline):
            data = devices // pipeline // tensor
            plain = pipeline == tensor == 1
            if rows % data or (not plain and (not heads or heads % tensor or layers % pipeline or tensor > NODE)):
                continue
            for zero in (0, 1, 2, 3) if data > 1 else (0,):
                layout = Layout(data=data, zero=zero, tensor=tensor, pipeline=pipeline)
                if tensor > 1:
                    layout = layout.model_copy(update={"sequence": "on"})
                yield layout, layout.degrees(devices)


def divisors(number: int) -> list[int]:
    """The divisors of a number."""
    return [each for each in range(1, number + 1) if number % each == 0]


def that_fit(counted: Counted, devices: int, room: int) -> list[tuple[Layout, Degrees, Parts]]:
    """The layouts on so many devices whose fullest rank fits, the ones that send least first.

    Order: no ZeRO-3 before ZeRO-3, small tensor and pipeline degrees first. Raises ConfigError if none fits.
    """
    found = [(layout, degrees, counted.rank(layout, degrees)) for layout, degrees in layouts(counted, devices)]
    fitting = [each for each in found if each[2].least <= room]
    if not fitting:
        rows = number(counted.recipe.schedule.batch)
        least = min((each[2] for each in found), key=lambda need: need.total, default=None)
        lower = "lower schedule.micro_batch, or machine.recompute=on"
        reason = f"the least takes {least.describe()}; {lower}" if least else f"{rows} rows cannot be divided over them"
        raise ConfigError(f"no layout fits on {devices} devices of {size_of(room)}: {reason}")
    return sorted(fitting, key=lambda each: (each[1].tensor * each[1].pipeline, each[0].zero))
