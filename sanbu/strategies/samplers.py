"""Samplers: from noise to a sample over a denoiser, as plain functions that need no recipe.

    samples = sanbu.strategies.sample_heun(denoise, noise, times)

denoise(x_t, t) gives the clean sample D seen in x_t = a_t D + s_t E, where a_t, s_t are the path's alpha and sigma
and E is the noise. Below them are their steps, from a time t to an earlier time s, each a function of a few lines.
Times are numbers; the last one is the clean end, where s_s = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sanbu.paths import LinearPath, NoisePath

Denoise = Callable[[Tensor, float], tuple[Tensor, Tensor]]


@dataclass
class Memory:
    """What one step leaves for the next: its clean sample, half the log of its SNR, the count of evaluations."""

    clean: Tensor
    log_ratio: float | None = None
    evaluations: int = 0


Sampler = Callable[[Denoise, NoisePath, Tensor, float, float, Memory, Callable[[], Tensor]], Tensor]


Clean = Callable[[Tensor, float], Tensor]  # (x_t, t) -> the clean sample
Callback = Callable[[int, float, Tensor, Tensor], object]  # (step, time after it, x, clean sample)


# -- whole samplers ---------------------------------------------------------------------------------------------------


def sample_euler(
    denoise: Clean,
    noise: Tensor,
    times: Sequence[float],
    callback: Callback | None = None,
    *,
    path: NoisePath | None = None,
) -> Tensor:
    """Euler's method; one evaluation per step. noise: standard normal [B, ...]. path: linear by default."""
    return walk(euler, denoise, noise, times, callback, path)


def sample_heun(
    denoise: Clean,
    noise: Tensor,
    times: Sequence[float],
    callback: Callback | None = None,
    *,
    path: NoisePath | None = None,
) -> Tensor:
    """Heun's method, second order (Karras and others, 2022); two evaluations per step, one in the last."""
    return walk(heun, denoise, noise, times, callback, path)


def sample_dpm_solver(
    denoise: Clean,
    noise: Tensor,
    times: Sequence[float],
    callback: Callback | None = None,
    *,
    path: NoisePath | None = None,
) -> Tensor:
    """DPM-Solver++(2M), second order (Lu and others, 2022); one evaluation per step."""
    return walk(dpm_solver, denoise, noise, times, callback, path)


def sample_ddim(
    denoise: Clean,
    noise: Tensor,
    times: Sequence[float],
    callback: Callback | None = None,
    *,
    path: NoisePath | None = None,
) -> Tensor:
    """DDIM without noise (Song, Meng and Ermon, 2021); one evaluation per step."""
    return walk(ddim, denoise, noise, times, callback, path)


def sample_ancestral(
    denoise: Clean,
    noise: Tensor,
    times: Sequence[float],
    callback: Callback | None = None,
    *,
    path: NoisePath | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """DDPM's ancestral sampling (Ho, Jain and Abbeel, 2020): new noise in every step, from `generator`."""
    return walk(ancestral, denoise, noise, times, callback, path, generator)


def sample_consistency(
    denoise: Clean,
    noise: Tensor,
    times: Sequence[float],
    callback: Callback | None = None,
    *,
    path: NoisePath | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Multistep consistency sampling (Song and others, 2023): the clean sample with new noise from `generator`."""
    return walk(consistency, denoise, noise, times, callback, path, generator)


@torch.no_grad()
def walk(
    sampler: Sampler,
    denoise: Clean,
    noise: Tensor,
    times: Sequence[float],
    callback: Callback | None,
    path: NoisePath | None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The sampler's step from each time to the next. Raises ValueError when the times do not fall."""
    steps = list(pairwise(float(time) for time in times))
    if not steps or any(s >= t for t, s in steps):
        raise ValueError("times must be two or more numbers, each smaller than the one before it")
    way = path or LinearPath()

    def both(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        clean, (a, sigma) = denoise(x, t), levels(way, t)
        return clean, (x - a * clean) / sigma

    def fresh() -> Tensor:
        return torch.randn(noise.shape, generator=generator, dtype=noise.dtype, device=noise.device)

    first, _ = steps[0]
    _, sigma = levels(way, first)
    x, memory = sigma * noise, Memory(torch.zeros_like(noise))
    for number, (t, s) in enumerate(steps):
        x = sampler(both, way, x, t, s, memory, fresh)
        if callback is not None:
            callback(number, s, x, memory.clean)
    return x


# -- their steps ------------------------------------------------------------------------------------------------------


def levels(path: NoisePath, t: float) -> tuple[float, float]:
    """alpha and sigma at t."""
    time = torch.tensor(t, dtype=torch.float64)
    return float(path.alpha(time)), float(path.sigma(time))


def ancestral(
    denoise: Denoise, path: NoisePath, x: Tensor, t: float, s: float, memory: Memory, fresh: Callable[[], Tensor]
) -> Tensor:
    """A draw from q(x_s | x_t, x = D) (Ho, Jain and Abbeel, 2020)."""
    (a_t, s_t), (a_s, s_s) = levels(path, t), levels(path, s)
    clean, noise = denoise(x, t)
    memory.clean = clean
    variance = max(0.0, s_t**2 - (a_t / a_s * s_s) ** 2)
    up = s_s / s_t * math.sqrt(variance)
    down = math.sqrt(max(0.0, s_s**2 - up**2))
    return a_s * clean + down * noise + up * fresh()


def ddim(
    denoise: Denoise, path: NoisePath, x: Tensor, t: float, s: float, memory: Memory, fresh: Callable[[], Tensor]
) -> Tensor:
    """a_s D + s_s E: the noise stays, the mixture moves (Song, Meng and Ermon, 2021)."""
    a_s, s_s = levels(path, s)
    clean, noise = denoise(x, t)
    memory.clean = clean
    return a_s * clean + s_s * noise


def euler(
    denoise: Denoise, path: NoisePath, x: Tensor, t: float, s: float, memory: Memory, fresh: Callable[[], Tensor]
) -> Tensor:
    """x + (s - t) dx/dt, with dx/dt = alpha' D + sigma' E."""
    memory.clean, slope = velocity(denoise, path, x, t)
    return x + (s - t) * slope


def heun(
    denoise: Denoise, path: NoisePath, x: Tensor, t: float, s: float, memory: Memory, fresh: Callable[[], Tensor]
) -> Tensor:
    """Euler corrected by the slope at its end; the last step, to no noise, is Euler's (Karras and others, 2022)."""
    memory.clean, slope = velocity(denoise, path, x, t)
    ahead = x + (s - t) * slope
    if levels(path, s)[1] == 0:
        return ahead
    memory.clean, other = velocity(denoise, path, ahead, s)
    return x + (s - t) * (slope + other) / 2


def dpm_solver(
    denoise: Denoise, path: NoisePath, x: Tensor, t: float, s: float, memory: Memory, fresh: Callable[[], Tensor]
) -> Tensor:
    """DPM-Solver++(2M): second order in log(alpha / sigma), by the last clean sample (Lu and others, 2022)."""
    (a_t, s_t), (a_s, s_s) = levels(path, t), levels(path, s)
    clean, _ = denoise(x, t)
    last, before = memory.clean, memory.log_ratio
    memory.clean, memory.log_ratio = clean, math.log(a_t / s_t) if a_t else -math.inf
    if s_s == 0:
        return a_s * clean
    step = math.log(a_s / s_s) - memory.log_ratio
    if before is not None and math.isfinite(before):
        clean = clean + step / (2 * (memory.log_ratio - before)) * (clean - last)
    return s_s / s_t * x - a_s * math.expm1(-step) * clean


def consistency(
    denoise: Denoise, path: NoisePath, x: Tensor, t: float, s: float, memory: Memory, fresh: Callable[[], Tensor]
) -> Tensor:
    """The clean picture, mixed with new noise for the next step (Song and others, 2023)."""
    a_s, s_s = levels(path, s)
    memory.clean, _ = denoise(x, t)
    return a_s * memory.clean + (s_s * fresh() if s_s else 0.0)


def velocity(denoise: Denoise, path: NoisePath, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """The clean picture, and dx/dt of the deterministic path through x."""
    rate_alpha, rate_sigma = (float(rate) for rate in path.rates(torch.tensor(t, dtype=torch.float64)))
    clean, noise = denoise(x, t)
    return clean, rate_alpha * clean + rate_sigma * noise


SAMPLERS: dict[str, Sampler] = {
    f.__name__.replace("_", "-"): f for f in (ancestral, ddim, euler, heun, dpm_solver, consistency)
}
