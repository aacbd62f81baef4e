"""Performing all frames at once: mean |mel - mel*| over the real frames of the whole batch."""

from __future__ import annotations

from typing import ClassVar, Literal

from sanbu.models.acoustic.acoustic import inside
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import Batch, Models


class Performing(ObjectiveConfig):
    """Absolute distance of the mel."""

    families: ClassVar[tuple[str, ...]] = ("performer",)
    kind: Literal["performing"] = "performing"

    def build(self) -> Objective:
        return Objective(loss, count_frames)


def loss(models: Models, batch: Batch) -> Loss:
    """Sums over frames; what fills up a row is not seen."""
    made = models["model"](batch["roll"], batch["frames"])
    real_BT = inside(batch["frames"], made.shape[2])
    return Loss({"frames": ((made - batch["mel"]).abs().mean(1) * real_BT).sum()})


def count_frames(batch: Batch) -> dict[str, float]:
    """The number of real frames."""
    return {"frames": float(batch["frames"].sum())}
