"""Performing all frames at once: mean |mel - mel*| over the real frames of the whole batch.

`performing-flow` adds the loss of a flow around the predicted mel: mean |v(x_t, mu, t) - (mel* - noise)|^2 of scaled
mels at x_t = (1 - t) noise + t mel*, where t is uniform.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sanbu.models.acoustic.acoustic import inside
from sanbu.models.acoustic.mel_flow import scaled
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.objectives.speaking_flow import flow_distance, way_to
from sanbu.space import Batch, Models


class Performing(ObjectiveConfig):
    """Absolute distance of the mel."""

    families: ClassVar[tuple[str, ...]] = ("performer",)
    kind: Literal["performing"] = "performing"

    def build(self) -> Objective:
        return Objective(loss, count_frames)


def loss(models: Models, batch: Batch) -> Loss:
    """Sums over frames; what fills up a row is not seen."""
    return Loss({"frames": distance(models["model"](batch["roll"], batch["frames"]), batch)})


def distance(made_BMT: Tensor, batch: Batch) -> Tensor:
    """The sum over real frames of mean |mel - mel*|."""
    real_BT = inside(batch["frames"], made_BMT.shape[2])
    return ((made_BMT - batch["mel"]).abs().mean(1) * real_BT).sum()


class PerformingFlow(ObjectiveConfig):
    """Absolute distance of the mean mel, and a flow around it."""

    families: ClassVar[tuple[str, ...]] = ("performer-flow",)
    kind: Literal["performing-flow"] = "performing-flow"
    flow: float = Field(1.0, gt=0, description="weight of the flow")

    def build(self) -> Objective:
        return Objective(self.loss, count_frames, experience=noised, alone=True)

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sums over frames."""
        mel, velocity = models["model"](*(batch[name] for name in ("roll", "frames", "noisy", "time")))
        own, flow = distance(mel, batch), flow_distance(velocity, batch)
        frames = batch["frames"].sum()
        return Loss(
            {"frames": own + self.flow * flow}, {"mel_l1": (own.detach(), frames), "flow": (flow.detach(), frames)}
        )


def noised(round: Round) -> Batch:
    """The rows with a noisy mel, its time and its velocity for each."""
    return {**round.batch, **way_to(scaled(round.batch["mel"]), round.noise)}


def count_frames(batch: Batch) -> dict[str, float]:
    """The number of real frames."""
    return {"frames": float(batch["frames"].sum())}
