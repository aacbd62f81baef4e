"""Discriminative fine-tuning: a linear head at the last token, with an auxiliary language modelling loss.

L = L_task + 0.5 L_language (Radford and others, "Improving language understanding by generative pre-training", 2018).
The K sequences of a row are the orders of a pair, whose scores are added, or choices, whose scores are compared.
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

Judge = Callable[[Tensor, Batch], tuple[Tensor, Metrics]]  # scores_BKO -> the summed loss and metrics


class Discriminative(ObjectiveConfig):
    """A label, a choice or a number, with an auxiliary language modelling loss."""

    kind: Literal["discriminative"] = "discriminative"
    families: ClassVar[tuple[str, ...]] = ("scorer",)
    judge: Literal["classify", "choose", "regress"] = Field("classify", description="task: class, choice or number")
    language: float = Field(0.5, ge=0, description="weight of the language modelling loss")

    def build(self) -> Objective:
        return discriminative(JUDGES[self.judge], self.language)


def discriminative(judge: Judge, weight: float) -> Objective:
    """The loss of a task plus the weighted language modelling loss."""
    return Objective(partial(loss, judge, weight), count)


def loss(judge: Judge, weight: float, models: Models, batch: Batch) -> Loss:
    """Both losses from one forward pass."""
    model = models["model"]
    tokens, targets = batch["tokens"].flatten(0, 1), batch["targets"].flatten(0, 1)
    last = batch["last"].flatten()
    hidden = model.hidden(tokens)
    score = model.score_head(hidden[torch.arange(len(last), device=last.device), last]).float()
    task, metrics = judge(score.view(*batch["last"].shape, -1), batch)
    has_target = targets != IGNORED
    language = torch.zeros_like(task)
    if weight:
        language = weight * cross_entropy(model.trunk.head(hidden[has_target]), targets[has_target])
    return Loss({"task": task, "language": language}, metrics)


def count(batch: Batch) -> dict[str, float]:
    """The task is a mean over rows, the language modelling loss a mean over tokens."""
    return {"task": float(len(batch["label"])), "language": float((batch["targets"] != IGNORED).sum())}


def classify(score_BKO: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
    """The cross-entropy of the label."""
    score = score_BKO.sum(1)
    return F.cross_entropy(score, batch["label"], reduction="sum"), {
        "accuracy": fraction(score.argmax(1) == batch["label"])
    }


def choose(score_BKO: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
    """The cross-entropy of the right choice; absent choices have probability 0."""
    score = score_BKO[..., 0].masked_fill(batch["last"] == 0, -torch.inf)
    return F.cross_entropy(score, batch["label"], reduction="sum"), {
        "accuracy": fraction(score.argmax(1) == batch["label"])
    }


def regress(score_BKO: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
    """The squared error of the number."""
    error = (score_BKO[..., 0].sum(1) - batch["label"]).square().sum()
    return error, {"squared_error": (error, torch.tensor(float(len(batch["label"]))))}


JUDGES: dict[str, Judge] = {"classify": classify, "choose": choose, "regress": regress}
