"""Learning-rate shapes: functions from the number of updates done to a factor of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable

Rate = Callable[[int], float]


def warm(step: int, warmup_steps: float) -> float:
    """A ramp from 1/warmup to 1; the first update is never at rate zero."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps >= 1 else 1.0


def constant(steps: int, warmup: float) -> Rate:
    """Warm up over a fraction of the steps, then 1."""
    return lambda step: warm(step, warmup * steps)


def linear(steps: int, warmup: float, hold: float, final: float) -> Rate:
    """Warm up, hold at 1, then fall linearly to `final` at the last step."""

    def rate(step: int) -> float:
        start = (warmup + hold) * steps
        progress = min(1.0, max(0.0, (step + 1 - start) / max(steps - start, 1)))
        return warm(step, warmup * steps) * (1 - (1 - final) * progress)

    return rate


def cosine(steps: int, warmup: float, final: float) -> Rate:
    """Warm up, then final + (1 - final) (1 + cos(pi progress)) / 2."""

    def rate(step: int) -> float:
        start = warmup * steps
        progress = min(1.0, max(0.0, (step - start) / max(steps - start, 1)))
        return warm(step, start) * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)

    return rate
