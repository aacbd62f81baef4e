"""Consistency: the clean picture seen from a time t is the one seen from an earlier time r on the same path.

E |D(x_t, t) - D-(x_r, r)| / (t - r), with r moving from 0 toward t in stages: D- is the model without gradient, and
D(x, 0) = x (Song and others, 2023; Geng and others, 2024, whose stages and pseudo-Huber error these are). From
scratch or, better, from a trained denoiser (parents.model).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.average import Average
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round, count_rows
from sanbu.objectives.times import LogNormal, TimesConfig
from sanbu.paths import mix
from sanbu.space import Batch, Models


class Consistency(ObjectiveConfig):
    """The same clean picture from every time of a path: one step is enough to draw."""

    kind: Literal["consistency"] = "consistency"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    times: TimesConfig = LogNormal(mean=-1.1, deviation=2.0)
    stage: int = Field(500, ge=1, description="rounds until the gap of times shrinks again")
    shrink: float = Field(2.0, gt=1, description="how much it shrinks")
    huber: float = Field(0.00054, ge=0, description="constant of the pseudo-Huber error, a root of the pixels")

    def build(self) -> Objective:
        return consistency(self.times, self.stage, self.shrink, self.huber)


def consistency(times: TimesConfig, stage: int, shrink: float, huber: float) -> Objective:
    """Every `stage` rounds the gap of times shrinks by `shrink`; huber: c / sqrt(pixels) of sqrt(error^2 + c^2) - c."""

    def experience(round: Round) -> Batch:
        batch, noise = round.batch, round.noise
        model, target, x = round.models["model"], round.models["target"], batch["image"]
        t_B, e = times.draw(model.path, noise, len(x)), noise.normal(*x.shape)
        r_B = earlier(t_B, int(target.rounds) // stage, shrink)
        x_t, x_r = mix(model.path, x, e, t_B), mix(model.path, x, e, r_B)
        goal = clean(target.module, x_r, r_B, batch["label"], x)
        return {"image": x_t, "time": t_B, "label": batch["label"], "target": goal, "weight": 1 / (t_B - r_B)}

    def loss(models: Models, batch: Batch) -> Loss:
        found, _ = models["model"].estimate(batch["image"], batch["time"], batch["label"])
        c = huber * math.sqrt(found[0].numel())
        square_B = (found - batch["target"]).square().flatten(1).sum(1)
        error_B = (square_B + c**2).sqrt() - c
        return Loss({"rows": (batch["weight"] * error_B).sum() / math.sqrt(found[0].numel())})

    return Objective(loss, count_rows, attach=follow, experience=experience)


def follow(model: nn.Module) -> dict[str, nn.Module]:
    """The model of the round before, which also counts the rounds."""
    return {"target": Average(model, decay=0.0)}


def earlier(t_B: Tensor, stage: int, shrink: float) -> Tensor:
    """r = t (1 - shrink^-stage (1 + 8 sigmoid(-t))), at least 0: at stage 0 the target is the picture itself."""
    gap_B = shrink**-stage * (1 + 8 * (-t_B).sigmoid())
    return (t_B * (1 - gap_B)).clamp(min=0)


def clean(model: Any, x_r: Tensor, r_B: Tensor, label_B: Tensor, x: Tensor) -> Tensor:
    """The picture seen from r; the picture itself at r = 0."""
    found, _ = model.estimate(x_r, r_B.clamp(min=1e-6), label_B)
    return found.where((r_B > 0).view(-1, 1, 1, 1), x)
