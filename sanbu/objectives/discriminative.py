"""GPT-1's fine-tuning (Radford and others, 2018): a linear head at the last token, plus the language model's loss.

L = L_task + 0.5 L_language. Sequences of one row (both orders of a pair, or all choices) come together: their scores
are added for a label, and compared with each other for a choice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.objectives.answers import fraction
from sanbu.objectives.next_token import cross_entropy
from sanbu.objectives.objective import Loss, Metrics, Objective, ObjectiveConfig
from sanbu.space import IGNORED, Batch, Models

Judge = Callable[[Tensor, Batch], tuple[Tensor, Metrics]]  # scores_BKO -> the summed loss, and figures


class Discriminative(ObjectiveConfig):
    """A label, a choice or a number, with the language model beside it."""

    kind: Literal["discriminative"] = "discriminative"
    families: ClassVar[tuple[str, ...]] = ("scorer",)
    judge: Literal["classify", "choose", "regress"] = Field(
        "classify", description="how scores are compared with the label"
    )
    language: float = Field(0.5, ge=0, description="weight of the language model's loss")

    def build(self) -> Objective:
        return discriminative(JUDGES[self.judge], self.language)


def discriminative(judge: Judge, weight: float) -> Objective:
    """A task's loss with the language model's, weighted."""
    return Objective(partial(loss, judge, weight), count)


def loss(judge: Judge, weight: float, models: Models, batch: Batch) -> Loss:
    """Both losses from one pass through the trunk."""
    model = models["model"]
    tokens, targets = batch["tokens"].flatten(0, 1), batch["targets"].flatten(0, 1)
    last = batch["last"].flatten()
    hidden = model.hidden(tokens)
    score = model.score_head(hidden[torch.arange(len(last), device=last.device), last]).float()
    task, metrics = judge(score.view(*batch["last"].shape, -1), batch)
    asked = targets != IGNORED
    language = task * 0
    if weight:
        language = weight * cross_entropy(model.trunk.head(hidden[asked]), targets[asked])
    return Loss({"task": task, "language": language}, metrics)


def count(batch: Batch) -> dict[str, float]:
    """The task is a mean over rows, the language model over tokens."""
    return {"task": float(len(batch["label"])), "language": float((batch["targets"] != IGNORED).sum())}


def classify(score_BKO: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
    """Cross-entropy of the label."""
    score = score_BKO.sum(1)
    return F.cross_entropy(score, batch["label"], reduction="sum"), {
        "accuracy": fraction(score.argmax(1) == batch["label"])
    }


def choose(score_BKO: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
    """Cross-entropy of the right choice among those there are."""
    score = score_BKO[..., 0].masked_fill(batch["last"] == 0, -torch.inf)
    return F.cross_entropy(score, batch["label"], reduction="sum"), {
        "accuracy": fraction(score.argmax(1) == batch["label"])
    }


def regress(score_BKO: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
    """Squared error of the number."""
    error = (score_BKO[..., 0].sum(1) - batch["label"]).square().sum()
    return error, {"squared_error": (error, torch.tensor(float(len(batch["label"]))))}


JUDGES: dict[str, Judge] = {"classify": classify, "choose": choose, "regress": regress}
