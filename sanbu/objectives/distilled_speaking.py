"""FastSpeech (Ren and others, 2019): the loss of `speaking`, with durations distilled from an attention model.

The teacher reads each true mel (teacher forcing). The durations are those of the best monotonic path through the
logarithms of its attention weights, where the paper counts the frames in which a symbol has the largest weight: that
count skips symbols. The mels are the true ones, as in FastSpeech 2, where the paper takes the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from sanbu.objectives.objective import Objective, Round
from sanbu.objectives.speaking import SpeakingConfig, aligned, count, experience
from sanbu.space import Batch


class DistilledSpeaking(SpeakingConfig):
    """Distance of the mel, with durations of the acoustic model parents.teacher."""

    parent_families: ClassVar[Mapping[str, tuple[str, ...]]] = {"teacher": ("attention", "durations")}
    kind: Literal["distilled-speaking"] = "distilled-speaking"

    def build(self) -> Objective:
        return Objective(self.loss, count, experience=taught, alone=True)

    def needs(self) -> tuple[str, ...]:
        return ("teacher",)


def taught(round: Round) -> Batch:
    """The batch of `speaking`, whose durations are the teacher's."""
    durations = aligned(round.models["teacher"], round.batch)
    return experience(Round(round.models, {**round.batch, "durations": durations}, round.noise))
