"""Consistency training: the model predicts the same clean picture from all times of a noise path.

E |D(x_t, t) - D-(x_r, r)| / (t - r), where r < t is on the same path and moves from 0 towards t in stages, D- is the
model without gradient, and D(x, 0) = x. Song and others, "Consistency models", 2023; the stages and the pseudo-Huber
error are those of Geng and others, 2024. Training starts from scratch or, better, from a denoiser (parents.model).
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
    """The same clean picture from every time of a path; sampling needs one step."""

    kind: Literal["consistency"] = "consistency"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    times: TimesConfig = LogNormal(mean=-1.1, deviation=2.0)
    stage: int = Field(500, ge=1, description="rounds per stage; t - r shrinks after each")
    shrink: float = Field(2.0, gt=1, description="divisor of the relative gap (t - r) / t per stage")
    huber: float = Field(0.00054, ge=0, description="pseudo-Huber constant c / sqrt(pixels)")

    def build(self) -> Objective:
        return consistency(self.times, self.stage, self.shrink, self.huber)


def consistency(times: TimesConfig, stage: int, shrink: float, huber: float) -> Objective:
    """The error is (sqrt(|difference|^2 + c^2) - c) / sqrt(pixels) with c = huber sqrt(pixels)."""

    def experience(round: Round) -> Batch:
        batch, noise = round.batch, round.noise
        model, target, x = round.models["model"], round.models["target"], batch["image"]
        t_B, e = times.draw(model.path, noise, len(x)), noise.normal(*x.shape)
        r_B = earlier_time(t_B, int(target.rounds) // stage, shrink)
        x_t, x_r = mix(model.path, x, e, t_B), mix(model.path, x, e, r_B)
        goal = clean_picture(target.module, x_r, r_B, batch["label"], x)
        return {"image": x_t, "time": t_B, "label": batch["label"], "target": goal, "weight": 1 / (t_B - r_B)}

    def loss(models: Models, batch: Batch) -> Loss:
        found, _ = models["model"].estimate(batch["image"], batch["time"], batch["label"])
        c = huber * math.sqrt(found[0].numel())
        square_B = (found - batch["target"]).square().flatten(1).sum(1)
        error_B = (square_B + c**2).sqrt() - c
        return Loss({"rows": (batch["weight"] * error_B).sum() / math.sqrt(found[0].numel())})

    return Objective(loss, count_rows, attach=attach_target, experience=experience)


def attach_target(model: nn.Module) -> dict[str, nn.Module]:
    """The target D-: the model after the previous round. It also counts rounds."""
    return {"target": Average(model, decay=0.0)}


def earlier_time(t_B: Tensor, stage: int, shrink: float) -> Tensor:
    """r = t (1 - shrink^-stage (1 + 8 sigmoid(-t))), at least 0; at stage 0, r = 0."""
    gap_B = shrink**-stage * (1 + 8 * (-t_B).sigmoid())
    return (t_B * (1 - gap_B)).clamp(min=0)


def clean_picture(model: Any, x_r: Tensor, r_B: Tensor, label_B: Tensor, x: Tensor) -> Tensor:
    """D(x_r, r); at r = 0 the picture x itself."""
    found, _ = model.estimate(x_r, r_B.clamp(min=1e-6), label_B)
    return found.where((r_B > 0).view(-1, 1, 1, 1), x)
