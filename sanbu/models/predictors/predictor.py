"""The family of predictors: model(x) -> outputs_BO. x has the shape of the space, the row first."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from sanbu.config import Auto, Positive
from sanbu.models.model import ModelConfig
from sanbu.space import Space


class PredictorConfig(ModelConfig):
    """What all predictors share: how many outputs they have."""

    family: ClassVar[str] = "predictor"
    outputs: Positive | Auto = Field("auto", description="number of outputs; auto: one per class, 1 without classes")

    def count_outputs(self, space: Space) -> int:
        """The number of outputs."""
        return max(space.classes, 1) if self.outputs == "auto" else self.outputs
