"""Flow matching around a predicted mel: the loss of `speaking` for the base, and the velocity of the flow.

x_t = (1 - t) noise + t mel;   mean |v(x_t, mu, t) - (mel - noise)|^2    (Lipman and others, 2023; Matcha-TTS, 2023)

Times are uniform; mels are scaled; means are over real frames.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.models.acoustic.acoustic import inside
from sanbu.models.acoustic.mel_flow import scaled
from sanbu.noise import Noise
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.objectives.speaking import Speaking, count, experience
from sanbu.space import Batch, Models


class SpeakingFlow(ObjectiveConfig):
    """The mean by its base, and a flow around it."""

    families: ClassVar[tuple[str, ...]] = ("speech-flow",)
    kind: Literal["speaking-flow"] = "speaking-flow"
    flow: float = Field(1.0, gt=0, description="weight of the flow")

    def build(self) -> Objective:
        return Objective(self.loss, count, experience=noised, alone=True)

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sums over frames and symbols."""
        given = [batch[name] for name in ("ids", "voice", "durations", "contour", "energy", "noisy", "time")]
        made = models["model"](*given)
        own = Speaking().loss_of(made.base, batch)
        flow = flow_distance(made.velocity, batch)
        frames = batch["frames"].sum()
        sums = {**own.sums, "frames": own.sums["frames"] + self.flow * flow}
        return Loss(sums, {**own.metrics, "flow": (flow.detach(), frames)})


def noised(round: Round) -> Batch:
    """What `speaking` learns from, with a noisy mel, its time and its velocity for each row."""
    base = Round({"model": round.models["model"].base}, round.batch, round.noise, learning=round.learning)
    batch = experience(base)
    return {**batch, **way_to(scaled(batch["mel"]), round.noise)}


def way_to(mel_BMT: Tensor, noise: Noise) -> Batch:
    """noisy [B, M, T], time [B] and velocity [B, M, T] of places on straight lines from noise to scaled mels."""
    B, M, T = mel_BMT.shape
    start = noise.normal(B, T, M).transpose(1, 2)
    time = noise.uniform(B)
    noisy = torch.lerp(start, mel_BMT, time[:, None, None])
    return {"noisy": noisy, "time": time, "velocity": mel_BMT - start}


def flow_distance(velocity_BMT: Tensor, batch: Batch) -> Tensor:
    """The sum over real frames of mean |v - v*|^2."""
    real_BT = inside(batch["frames"], velocity_BMT.shape[2])
    return ((velocity_BMT - batch["velocity"]).square().mean(1) * real_BT).sum()
