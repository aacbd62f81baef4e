"""Reward models: preferred answers get higher scores.

Bradley and Terry (1952)          P(i better than j) = sigmoid(r_i - r_j - m), with margin m (Touvron and others, 2023)
Plackett (1975), Luce (1959)      P(order) = prod_i exp r_i / sum_{j not before i} exp r_j

A tie counts as half a pair in each direction. Pairs are averaged per question, so a question with more answers does
not weigh more (Ouyang and others, 2022).
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.objectives.answers import by_length, count_term, fraction
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import Batch, Models


class BradleyTerry(ObjectiveConfig):
    """A reward model trained on all pairs of answers to a question."""

    kind: Literal["bradley-terry"] = "bradley-terry"
    families: ClassVar[tuple[str, ...]] = ("scorer",)

    def build(self) -> Objective:
        return bradley_terry()


def bradley_terry() -> Objective:
    """The loss of all pairs of answers to a question."""
    return Objective(pair_loss, partial(count_term, "preference"))


class PlackettLuce(ObjectiveConfig):
    """A reward model trained on the whole order of the answers to a question."""

    kind: Literal["plackett-luce"] = "plackett-luce"
    families: ClassVar[tuple[str, ...]] = ("scorer",)

    def build(self) -> Objective:
        return plackett_luce()


def plackett_luce() -> Objective:
    """The loss of the whole order; tied answers are in the order of the data."""
    return Objective(order_loss, partial(count_term, "preference"))


def scores(models: Models, batch: Batch) -> Tensor:
    """r_BK, the score of each answer at its last token; 0 for absent answers."""
    there = batch["rank"] >= 0
    tokens_NT, last_N = batch["tokens"].flatten(0, 1), batch["last"].flatten()

    def score(rows: Tensor, width: int) -> Tensor:
        scores_M1: Tensor = models["model"](tokens_NT[rows, :width], last_N[rows])
        return scores_M1[:, 0].float()

    return by_length(score, last_N + 1).view(there.shape).where(there, 0.0)


def pair_loss(models: Models, batch: Batch) -> Loss:
    """The mean loss over the pairs of a question, summed over questions."""
    score_BK = scores(models, batch)
    losses_BKK, pairs_BKK = pair_losses(score_BK, batch["rank"], batch["margin"])
    each_B = losses_BKK.sum((1, 2)) / pairs_BKK.sum((1, 2)).clamp(min=1)
    return Loss({"preference": each_B.sum()}, pair_metrics(score_BK, batch["rank"], losses_BKK, batch["targets"]))


def pair_losses(score_BK: Tensor, rank_BK: Tensor, margin_B: Tensor) -> tuple[Tensor, Tensor]:
    """-log P of each pair, and a mask of the pairs: (i, j) with i better than j, or tied and i < j."""
    difference = score_BK[:, :, None] - score_BK[:, None, :] - margin_B[:, None, None]
    there = (rank_BK >= 0)[:, :, None] & (rank_BK >= 0)[:, None, :]
    better = there & (rank_BK[:, :, None] < rank_BK[:, None, :])
    equal = rank_BK[:, :, None] == rank_BK[:, None, :]
    tie = there & equal & torch.ones_like(there[0]).triu(1)
    plain = difference + margin_B[:, None, None]
    losses = torch.where(better, -F.logsigmoid(difference), 0.0)
    half_each = (F.logsigmoid(plain) + F.logsigmoid(-plain)) / 2
    losses = losses - torch.where(tie, half_each, 0.0)
    return losses, (better | tie).float()


def order_loss(models: Models, batch: Batch) -> Loss:
    """-log P(order), summed over questions."""
    score_BK = scores(models, batch)
    losses_B = order_losses(score_BK, batch["rank"])
    pairs_BKK, _ = pair_losses(score_BK, batch["rank"], torch.zeros_like(batch["margin"]))
    return Loss({"preference": losses_B.sum()}, pair_metrics(score_BK, batch["rank"], pairs_BKK, batch["targets"]))


def order_losses(score_BK: Tensor, rank_BK: Tensor) -> Tensor:
    """-log P(order) of each row, [B]."""
    absent_BK = rank_BK < 0
    order = rank_BK.masked_fill(absent_BK, rank_BK.max().item() + 1).argsort(dim=1, stable=True)
    score, absent = score_BK.gather(1, order), absent_BK.gather(1, order)
    rest = score.masked_fill(absent, -torch.inf).flip(1).logcumsumexp(1).flip(1)
    return torch.where(absent, 0.0, rest.masked_fill(absent, 0.0) - score).sum(1)


def pair_metrics(
    score_BK: Tensor, rank_BK: Tensor, losses_BKK: Tensor, targets_BKT: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Accuracy, calibration and length bias over all pairs without ties.

    confidence: the mean probability of the predicted order; above the accuracy, the model is overconfident. longer:
    how often the model prefers the longer answer; longer_is_better: how often the data do.
    """
    first, second = rank_BK[:, :, None], rank_BK[:, None, :]
    better = (first >= 0) & (second >= 0) & (first < second)
    margin = (score_BK[:, :, None] - score_BK[:, None, :]).detach()[better]
    length_BK = (targets_BKT >= 0).sum(2)
    longer = (length_BK[:, :, None] - length_BK[:, None, :])[better].sign()
    unequal = longer != 0
    return {
        "accuracy": fraction(margin > 0),
        "confidence": (margin.abs().sigmoid().sum(), torch.tensor(float(margin.numel()))),
        "longer": fraction((margin.sign() == longer)[unequal]),
        "longer_is_better": fraction((longer > 0)[unequal]),
    }
