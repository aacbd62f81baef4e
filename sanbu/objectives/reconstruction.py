"""Reconstruction: the picture from a changed view of it, E |f(view of x) - x|^2 over pixels, without labels.

A denoising autoencoder (Vincent and others, 2008) whose noise is a hidden square and changed light: what is hidden must
be guessed from the rest. The view is not moved or turned, so that the picture is where it was.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.objectives.views import Change, draws, views
from sanbu.space import Batch, Models


class Reconstruction(ObjectiveConfig):
    """Squared error of a picture drawn from a view of it."""

    kind: Literal["reconstruction"] = "reconstruction"
    families: ClassVar[tuple[str, ...]] = ("predictor",)
    input: str = Field("image", description="name of the pictures in a batch")
    moved: Change = Change(shift=0.15, turn=25.0, scale=0.15, shear=0.15)
    hidden: Change = Change(brightness=0.2, contrast=0.3, hole=0.5)

    def build(self) -> Objective:
        return reconstruction(self)


def reconstruction(config: Reconstruction) -> Objective:
    """Pictures are first moved, as classifiers will see them; what the model sees of them is then hidden."""

    def experience(round: Round) -> Batch:
        picture = round.batch[config.input]
        if round.learning:
            picture = views(config.moved, picture, draws(round.noise, len(picture)))
        return {"picture": picture, "view": views(config.hidden, picture, draws(round.noise, len(picture)))}

    def loss(models: Models, batch: Batch) -> Loss:
        error = models["model"](batch["view"]).float() - batch["picture"]
        return Loss({"pixels": error.square().sum()})

    return Objective(loss, lambda batch: {"pixels": float(batch["picture"].numel())}, experience=experience)
