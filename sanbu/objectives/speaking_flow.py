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
from sanbu.models.acoustic.flow_speech import scaled
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
        real_BT = inside(batch["frames"], batch["mel"].shape[2])
        flow = ((made.velocity - batch["velocity"]).square().mean(1) * real_BT).sum()
        frames = batch["frames"].sum()
        sums = {**own.sums, "frames": own.sums["frames"] + self.flow * flow}
        return Loss(sums, {**own.metrics, "flow": (flow.detach(), frames)})


def noised(round: Round) -> Batch:
    """What `speaking` learns from, with a noisy mel, its time and its velocity for each row."""
    base = Round({"model": round.models["model"].base}, round.batch, round.noise, learning=round.learning)
    batch = experience(base)
    mel: Tensor = scaled(batch["mel"])
    B, M, T = mel.shape
    noise = round.noise.normal(B, T, M).transpose(1, 2)
    time = round.noise.uniform(B)
    noisy = torch.lerp(noise, mel, time[:, None, None])
    return {**batch, "noisy": noisy, "time": time, "velocity": mel - noise}
