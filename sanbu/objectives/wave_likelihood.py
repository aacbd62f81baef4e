"""Exact likelihood of waves: -log p(wave | mel), for WaveNet (sample by sample) and WaveGlow (invertible flows).

Nats per sample. A WaveNet gives the probability of a level, 256 or 65,536 of them; a WaveGlow the density of a real
number. The two, and WaveNets with other levels, cannot be compared by this number.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import Batch, Models


class WaveLikelihood(ObjectiveConfig):
    """The exact negative log-likelihood of a wave given its mel."""

    kind: Literal["wave-likelihood"] = "wave-likelihood"
    families: ClassVar[tuple[str, ...]] = ("wave-density",)

    def build(self) -> Objective:
        return wave_likelihood()


def wave_likelihood() -> Objective:
    """Nats per sample."""
    return Objective(loss, count_samples)


def loss(models: Models, batch: Batch) -> Loss:
    """-log p, summed over rows."""
    return Loss({"likelihood": models["model"](batch["wave"], batch["mel"]).sum()})


def count_samples(batch: Batch) -> dict[str, float]:
    """The number of samples in a batch."""
    return {"likelihood": float(batch["wave"].numel())}
