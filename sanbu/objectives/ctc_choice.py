"""The true text of a sound among the texts of the batch, for commands, digits and other small sets of texts.

-log p(y | x) / sum over the texts y' of the batch p(y' | x)   - spelling log p(y | x) per letter

p is that of CTC. The first term is the criterion of maximum mutual information (Bahl and others, 1986), whose sum is
over all texts; here every text of a small set is in nearly every batch. A batch is not split.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from sanbu.layers.ctc import log_likelihoods
from sanbu.objectives.ctc import Ctc
from sanbu.objectives.ctc import count as count_letters
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, count_rows
from sanbu.space import Batch, Models


class CtcChoice(ObjectiveConfig):
    """The true text among the texts of the batch, and its letters."""

    families: ClassVar[tuple[str, ...]] = Ctc.families
    kind: Literal["ctc-choice"] = "ctc-choice"
    of: Ctc = Field(Ctc(stretch=0.2, colour=1.0, noise=0.7), description="how sounds are changed while learning")
    spelling: float = Field(0.1, ge=0, description="weight of CTC, per letter")

    def build(self) -> Objective:
        return replace(self.of.build(), loss=self.loss, count=count, additive=False)

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sums over rows and letters; a text that its sound is too short for teaches nothing."""
        model = models["model"]
        logprobs = model(batch["mel"], batch["frames"])
        texts_UL, true_B = batch["ids"].unique(dim=0, return_inverse=True)
        likely_BU = log_likelihoods(logprobs, model.steps(batch["frames"]), texts_UL)
        possible_B = likely_BU.gather(1, true_B[:, None])[:, 0].isfinite()
        likely_BU, true_B = likely_BU[possible_B], true_B[possible_B]
        choice = F.cross_entropy(likely_BU, true_B, reduction="sum")
        letters = -likely_BU.gather(1, true_B[:, None]).sum()
        right = (likely_BU.argmax(1) == true_B).sum()
        metrics = {
            "nats_per_letter": (letters.detach(), batch["symbols"].sum()),
            "chosen": (right, torch.tensor(len(batch["ids"]))),
        }
        return Loss({"rows": choice, "letters": self.spelling * letters}, metrics)


def count(batch: Batch) -> dict[str, float]:
    """The number of rows, and of letters."""
    return count_rows(batch) | count_letters(batch)
