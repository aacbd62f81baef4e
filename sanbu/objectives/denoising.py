"""Denoising: E_t w(t) |F(x_t, t) - (c_x x + c_e e)|^2 for x_t = alpha x + sigma e.

Diffusion (Ho and others, 2020), EDM (Karras and others, 2022) and flow matching (Lipman and others, 2023) differ in
path and target, which belong to the model, and in the weight w and the distribution of t, which are fields here.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round, count_rows
from sanbu.objectives.times import TimesConfig, Uniform
from sanbu.paths import mix, spread, weight
from sanbu.space import Batch, Models


class Denoising(ObjectiveConfig):
    """The weighted squared error of a denoiser: diffusion and flow matching."""

    kind: Literal["denoising"] = "denoising"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    weighting: Literal["uniform", "min-snr", "edm"] = Field("uniform", description="weight of the error by time")
    times: TimesConfig = Uniform()

    def build(self) -> Objective:
        return denoising(self.weighting, self.times)


def denoising(weighting: str, times: TimesConfig) -> Objective:
    """The mean squared error per pixel, weighted by time."""

    def experience(round: Round) -> Batch:
        batch, noise, model = round.batch, round.noise, round.models["model"]
        x, rows = batch["image"], len(batch["image"])
        t_B, e = times.draw(model.path, noise, rows), noise.normal(*x.shape)
        c_x, c_e = (spread(factor, x) for factor in model.factors(t_B))
        return {
            "image": mix(model.path, x, e, t_B),
            "time": t_B,
            "label": batch["label"],
            "target": c_x * x + c_e * e,
            "weight": weight(weighting, model.path, model.factors(t_B), t_B, model.deviation).to(x.dtype),
        }

    return Objective(loss, count_rows, experience=experience, alone=True)


def loss(models: Models, batch: Batch) -> Loss:
    """The weighted squared error: a mean over pixels, a sum over rows."""
    predicted = models["model"](batch["image"], batch["time"], batch["label"])
    error_B = (predicted - batch["target"]).square().flatten(1).mean(1)
    rows = error_B.new_tensor(len(error_B))
    return Loss({"rows": (batch["weight"] * error_B).sum()}, {"error": (error_B.detach().sum(), rows)})
