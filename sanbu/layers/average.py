"""Moving averages of a model's weights over the rounds.

Exponential: average <- decay * average + (1 - decay) * model, after each round (Polyak and Juditsky, 1992; warmed up
as 1 - 1/(t + 1), so that the first rounds are a plain mean). Used for the weights one samples from and for an
objective's slow target.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from sanbu.config import Choice
from sanbu.machine import local


class AverageConfig(Choice):
    """An average of the model's weights over the run, used for sampling and evaluation."""

    table: ClassVar[str] = "sanbu.layers:AVERAGES"

    def build(self, model: nn.Module) -> Following:
        raise NotImplementedError


class Following(nn.Module):
    """An average that follows the weights of a model; `module` is the averaged model."""

    module: nn.Module

    def follow(self) -> None:
        """Move one round toward the source."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Tensor]:
        """Tensors to save with a checkpoint, by name, to rebuild other averages; empty if there are none."""
        return {}


class Exponential(AverageConfig):
    """Exponential moving average of the weights."""

    kind: Literal["exponential"] = "exponential"
    decay: float = Field(0.999, ge=0, lt=1)

    def build(self, model: nn.Module) -> Following:
        return Average(model, self.decay)


class Average(Following):
    """A frozen copy of `source` that `follow` moves toward it. Calls go to the copy."""

    rounds: Tensor

    def __init__(self, source: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self._source = (source,)  # a tuple, so that the source is not registered as a part of its own average
        self.decay = decay
        self.module = copy.deepcopy(source).requires_grad_(False)
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)

    @torch.no_grad()
    def follow(self) -> None:
        """Move one round toward the source; buffers are copied."""
        self.rounds += 1
        plain_mean = float(1 - 1 / (self.rounds + 1))
        approach(self.module, self._source[0], 1.0 - min(self.decay, plain_mean))


class PowerFunction(AverageConfig):
    """Averages whose length grows with the run, saved at checkpoints; `sanbu average RUN` rebuilds other lengths."""

    kind: Literal["power-function"] = "power-function"
    lengths: tuple[float, float] = Field(
        (0.05, 0.1), description="relative widths of the two averages, as a fraction of training; samples use the first"
    )

    @field_validator("lengths", mode="after")
    @classmethod
    def _possible(cls, lengths: tuple[float, float]) -> tuple[float, float]:
        if not all(0 < length < 0.28 for length in lengths) or lengths[0] == lengths[1]:
            raise ValueError("two different widths between 0 and 0.28 are needed")
        return lengths

    def build(self, model: nn.Module) -> Following:
        return PowerAverage(model, self.lengths)


class PowerAverage(Following):
    """Two averages in which round i of t has the weight i^gamma / sum, so that their length grows with the run.

    average_t = (1 - 1/t)^(gamma + 1) average_(t-1) + the rest of the model. Kept now and then, they allow any other
    length to be rebuilt after training (Karras and others, 2024b). lengths: standard deviations of the weights, as a
    fraction of the run.
    """

    rounds: Tensor

    def __init__(self, source: nn.Module, lengths: tuple[float, float]) -> None:
        super().__init__()
        self._source = (source,)
        self.powers = [power_of(length) for length in lengths]
        self.module = copy.deepcopy(source).requires_grad_(False)
        self.other = copy.deepcopy(source).requires_grad_(False)
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)

    @torch.no_grad()
    def follow(self) -> None:
        self.rounds += 1
        for module, power in zip((self.module, self.other), self.powers, strict=True):
            approach(module, self._source[0], 1.0 - float(1 - 1 / self.rounds) ** (power + 1))

    def snapshot(self) -> dict[str, Tensor]:
        pairs = zip((self.module, self.other), self.powers, strict=True)
        found: dict[str, Tensor] = {}
        for module, power in pairs:
            found |= {f"{power!r}/{name}": tensor for name, tensor in module.state_dict().items()}
        return found


def approach(module: nn.Module, source: nn.Module, weight: float) -> None:
    """Move the parameters by the fraction `weight` toward those of the source; buffers are copied."""
    ours, theirs = ([local(parameter) for parameter in each.parameters()] for each in (module, source))
    if ours:
        torch._foreach_lerp_(ours, theirs, weight)
    for mine, other in zip(module.buffers(), source.buffers(), strict=True):
        mine.copy_(other)


def power_of(length: float) -> float:
    """The gamma for which the weights i^gamma have this relative standard deviation: the largest root of a cubic."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def snapshot_factors(powers: np.ndarray, rounds: np.ndarray, power: float, end: float) -> np.ndarray:
    """Factors of snapshots (powers and rounds) whose sum is nearest to an average of another power at round `end`.

    Least squares between the curves of weights over rounds, solved in closed form: the product of two curves up to
    rounds a < b with powers p, q integrates to (p+1)(q+1)/(p+q+1) a^(p+q+1) / (a^(p+1) b^(q+1)).
    """

    def product(p: np.ndarray, a: np.ndarray, q: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
        both, first, second = np.log(np.minimum(a, b)), np.log(a), np.log(b)
        log = (p + q + 1) * both - (p + 1) * first - (q + 1) * second  # in logs: the powers themselves overflow
        return (p + 1) * (q + 1) / (p + q + 1) * np.exp(log)

    matrix = product(powers[:, None], rounds[:, None], powers[None], rounds[None])
    return np.linalg.lstsq(matrix, product(powers, rounds, power, end), rcond=None)[0]
