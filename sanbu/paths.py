"""Noise paths: x_t = alpha(t) x + sigma(t) e, from a clean x (t smallest) to noise (t largest), e standard normal.

One object serves training and sampling: what a network may predict is a pair of factors (c_x, c_e) for c_x x + c_e e,
and every conversion between predictions is the same two linear equations (`solve`). No torch at import.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sanbu.config import Choice

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple["Tensor", "Tensor"]
Beta = Annotated[float, Field(gt=0, lt=1)]


class NoisePath(Choice):
    """A noise path: alpha and sigma as functions of time. Times are tensors of any shape; methods are elementwise."""

    def alpha(self, t: Tensor) -> Tensor:
        """The factor of the clean sample."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """The factor of the noise."""
        raise NotImplementedError

    def rates(self, t: Tensor) -> Pair:
        """The derivatives of alpha and sigma."""
        raise NotImplementedError

    def place(self, u: Tensor) -> Tensor:
        """The time at a fraction u in [0, 1] of the way from clean to noise; training draws u."""
        raise NotImplementedError

    def time_at(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio`."""
        raise NotImplementedError

    def clock(self, t: Tensor) -> Tensor:
        """The time as a network receives it, 0 to about 1000."""
        return 1000 * t

    def most_steps(self) -> int | None:
        """The most steps a sampler can take, None where time is continuous."""
        return None

    def grid(self, steps: int) -> Tensor:
        """The steps + 1 times a sampler visits, from noise to clean; evenly spaced, the noisiest first."""
        import torch

        return self.place(torch.linspace(1, 0, steps + 1, dtype=torch.float64))


class LinearPath(NoisePath):
    """alpha = 1 - t, sigma = t: flow matching (Lipman and others, 2023) and rectified flow (Liu and others, 2023)."""

    kind: Literal["linear"] = "linear"

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def rates(self, t: Tensor) -> Pair:
        one = ones_like(t)
        return -one, one

    def place(self, u: Tensor) -> Tensor:
        return u

    def time_at(self, ratio: Tensor) -> Tensor:
        return ratio / (1 + ratio)


class CosinePath(NoisePath):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol and Dhariwal, 2021, without their offset).

    t ends at 0.999, where a thousandth of the clean sample is left, so that predicted noise still says something.
    """

    kind: Literal["cosine"] = "cosine"

    def alpha(self, t: Tensor) -> Tensor:
        return (t * (math.pi / 2)).cos()

    def sigma(self, t: Tensor) -> Tensor:
        return (t * (math.pi / 2)).sin()

    def rates(self, t: Tensor) -> Pair:
        turn = math.pi / 2
        return -turn * self.sigma(t), turn * self.alpha(t)

    def place(self, u: Tensor) -> Tensor:
        return 0.999 * u

    def time_at(self, ratio: Tensor) -> Tensor:
        return ratio.atan() * (2 / math.pi)


class Chain(NoisePath):
    """A chain of steps: alpha^2 falls by 1 - beta per step (Ho, Jain and Abbeel, 2020); a kind gives the betas.

    t = i / length after i steps of noise; between steps log alpha^2 is linear in t.
    """

    def betas(self) -> Tensor:
        """beta of each step, float64 on the CPU."""
        raise NotImplementedError

    @cached_property
    def length(self) -> int:
        """The number of steps of the chain."""
        return len(self.betas())

    @cached_property
    def _logs(self) -> Tensor:
        """log alpha^2 after 0 ... length steps, float64."""
        import torch

        betas = self.betas()
        return torch.cat((betas.new_zeros(1), torch.log1p(-betas).cumsum(0)))

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """log alpha^2 at t and its slope, to the left at a step of the chain."""
        logs = self._logs.to(t.device)
        place = t.double() * self.length
        below = (place.ceil() - 1).clamp(0, self.length - 1).long()
        slope = logs[below + 1] - logs[below]
        return logs[below] + (place - below) * slope, slope * self.length

    def alpha(self, t: Tensor) -> Tensor:
        return (self._at(t)[0] / 2).exp().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return (-self._at(t)[0].expm1()).clamp(min=0).sqrt().to(t.dtype)

    def rates(self, t: Tensor) -> Pair:
        log, slope = self._at(t)
        sigma = (-log.expm1()).clamp(min=1e-12).sqrt()
        alpha_rate = (log / 2).exp() * slope / 2
        sigma_rate = -log.exp() * slope / (2 * sigma)
        return alpha_rate.to(t.dtype), sigma_rate.to(t.dtype)

    def place(self, u: Tensor) -> Tensor:
        return (u * self.length).ceil() / self.length

    def most_steps(self) -> int | None:
        return self.length

    def grid(self, steps: int) -> Tensor:
        """Trailing spacing: the noisiest step first, rounded to steps of the chain."""
        import torch

        return torch.linspace(self.length, 0, steps + 1, dtype=torch.float64).round() / self.length

    def time_at(self, ratio: Tensor) -> Tensor:
        import torch

        logs = self._logs.to(ratio.device)
        log = -torch.log1p(ratio.double().square())
        above = torch.searchsorted(-logs, -log).clamp(1, self.length)
        part = (log - logs[above - 1]) / (logs[above] - logs[above - 1])
        return ((above - 1 + part) / self.length).clamp(0, 1).to(ratio.dtype)

    def clock(self, t: Tensor) -> Tensor:
        """The index of the chain's step, from 0."""
        return self.length * t - 1


class Betas(Chain):
    """DDPM's chain: beta linear from first to last (Ho, Jain and Abbeel, 2020)."""

    kind: Literal["betas"] = "betas"
    steps: int = Field(1000, ge=2, le=10**6, description="steps of the chain")
    first: float = Field(1e-4, gt=0, lt=1)
    last: float = Field(0.02, gt=0, lt=1)

    def betas(self) -> Tensor:
        import torch

        # the device is named, because the result is kept: it must not be on meta
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64, device="cpu")


class ListedBetas(Chain):
    """A chain with any betas, one for each step, as other libraries train with."""

    kind: Literal["listed-betas"] = "listed-betas"
    values: tuple[Beta, ...] = Field(min_length=2, max_length=10**6, description="beta of each step")

    def betas(self) -> Tensor:
        import torch

        return torch.tensor(self.values, dtype=torch.float64, device="cpu")


class Exploding(NoisePath):
    """alpha = 1, sigma = t: the path of EDM, sampled on a grid even in sigma^(1/rho) (Karras and others, 2022)."""

    kind: Literal["exploding"] = "exploding"
    sigma_min: float = Field(0.002, gt=0, description="last noise level before the clean sample")
    sigma_max: float = Field(80.0, gt=0, description="first noise level; small pictures need less")
    rho: float = Field(7.0, ge=0.1, le=1000)

    def alpha(self, t: Tensor) -> Tensor:
        return ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def rates(self, t: Tensor) -> Pair:
        return zeros_like(t), ones_like(t)

    def place(self, u: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + u * (high - low)) ** self.rho

    def time_at(self, ratio: Tensor) -> Tensor:
        return ratio.clamp(self.sigma_min, self.sigma_max)

    def clock(self, t: Tensor) -> Tensor:
        return 250 * t.log()

    def grid(self, steps: int) -> Tensor:
        """`steps` noise levels from sigma_max to sigma_min, then 0; a single step begins at sigma_max."""
        import torch

        levels = self.place(torch.linspace(1, 0, steps, dtype=torch.float64))
        return torch.cat((levels, torch.zeros(1, dtype=torch.float64)))


# -- what a network predicts ------------------------------------------------------------------------------------------

Target = Callable[[NoisePath, "Tensor", float], Pair]


def noise(path: NoisePath, t: Tensor, deviation: float) -> Pair:
    """The noise e (Ho and others, 2020)."""
    return zeros_like(t), ones_like(t)


def clean(path: NoisePath, t: Tensor, deviation: float) -> Pair:
    """The clean sample x."""
    return ones_like(t), zeros_like(t)


def velocity(path: NoisePath, t: Tensor, deviation: float) -> Pair:
    """dx_t / dt = alpha' x + sigma' e (Lipman and others, 2023)."""
    return path.rates(t)


def rotation(path: NoisePath, t: Tensor, deviation: float) -> Pair:
    """v = alpha e - sigma x, the velocity by angle of a path with alpha^2 + sigma^2 = 1 (Salimans and Ho, 2022)."""
    return -path.sigma(t), path.alpha(t)


def preconditioned(path: NoisePath, t: Tensor, deviation: float) -> Pair:
    """(x - c_skip x_t) / c_out, of unit variance where the data's deviation is as given (Karras and others, 2022)."""
    a, s = path.alpha(t), path.sigma(t)
    total = a**2 * deviation**2 + s**2
    skip, out = a * deviation**2 / total, s * deviation / total.sqrt()
    return (1 - skip * a) / out, -skip * s / out


TARGETS: dict[str, Target] = {f.__name__: f for f in (noise, clean, velocity, rotation, preconditioned)}
TargetName = Literal["noise", "clean", "velocity", "rotation", "preconditioned"]


def ones_like(t: Tensor) -> Tensor:
    """Ones in the shape and type of t, without importing torch at the top of this file."""
    return t.new_ones(t.shape)


def zeros_like(t: Tensor) -> Tensor:
    """Zeros in the shape and type of t."""
    return t.new_zeros(t.shape)


def mix(path: NoisePath, x: Tensor, e: Tensor, t_B: Tensor) -> Tensor:
    """x_t, with one time per row."""
    return spread(path.alpha(t_B), x) * x + spread(path.sigma(t_B), x) * e


def solve(path: NoisePath, factors: Pair, x_t: Tensor, output: Tensor, t_B: Tensor) -> Pair:
    """(x, e) from x_t = alpha x + sigma e and output = c_x x + c_e e; one factor and one time per row."""
    a, s = spread(path.alpha(t_B), x_t), spread(path.sigma(t_B), x_t)
    c_x, c_e = (spread(factor, x_t) for factor in factors)
    determinant = a * c_e - s * c_x
    x = (c_e * x_t - s * output) / determinant
    e = (a * output - c_x * x_t) / determinant
    return x, e


def spread(values_B: Tensor, like: Tensor) -> Tensor:
    """One value per row, in a shape and type that multiplies `like`."""
    return values_B.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


# -- weight of each time ----------------------------------------------------------------------------------------------


def weight(name: str, path: NoisePath, factors: Pair, t_B: Tensor, deviation: float) -> Tensor:
    """The weight of the squared error of a prediction.

    uniform: 1. min-snr: min(SNR, 5) on the error of x (Hang and others, 2023). edm: (sigma^2 + d^2) / (sigma d)^2 on
    the error of x (Karras and others, 2022). An error of the prediction is an error of x times sigma / determinant.
    """
    a, s = path.alpha(t_B), path.sigma(t_B)
    if name == "uniform":
        return ones_like(t_B)
    determinant = a * factors[1] - s * factors[0]
    ratio = (s / a).square()
    if name == "min-snr":
        on_x = (1 / ratio).clamp(max=5)
    else:
        on_x = (ratio + deviation**2) / (ratio * deviation**2)
    return on_x * (s / determinant).square()
