"""Reward models: answers people prefer get higher scores.

Bradley and Terry (1952): P(i better than j) = sigmoid(r_i - r_j); a margin m asks for r_i - r_j > m (Touvron and
others, 2023); a tie is half of each. All pairs of one question are averaged, so that no question counts more for
having more answers (Ouyang and others, 2022). Plackett (1975), Luce (1959): P(order) = prod_i exp r_i / sum_{j not
before i} exp r_j.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.objectives.answers import count_term, fraction, spread
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import Batch, Models


class BradleyTerry(ObjectiveConfig):
    """A reward model from every pair of answers to a question."""

    kind: Literal["bradley-terry"] = "bradley-terry"
    families: ClassVar[tuple[str, ...]] = ("scorer",)

    def build(self) -> Objective:
        return bradley_terry()


def bradley_terry() -> Objective:
    """Every pair of answers to a question."""
    return Objective(pair_loss, partial(count_term, "preference"))


class PlackettLuce(ObjectiveConfig):
    """A reward model from the whole order of the answers to a question."""

    kind: Literal["plackett-luce"] = "plackett-luce"
    families: ClassVar[tuple[str, ...]] = ("scorer",)

    def build(self) -> Objective:
        return plackett_luce()


def plackett_luce() -> Objective:
    """The whole order of the answers at once; ties are taken in the order they are given."""
    return Objective(order_loss, partial(count_term, "preference"))


def scores(models: Models, batch: Batch) -> Tensor:
    """r_BK of every answer there is, at its last token; 0 where there is none."""
    there = batch["rank"] >= 0
    scores_M = models["model"](batch["tokens"][there], batch["last"][there])[:, 0]
    return spread(scores_M.float(), there)


def pair_loss(models: Models, batch: Batch) -> Loss:
    """The mean over a question's pairs, summed over questions."""
    score_BK = scores(models, batch)
    losses_BKK, pairs_BKK = pairwise(score_BK, batch["rank"], batch["margin"])
    each_B = losses_BKK.sum((1, 2)) / pairs_BKK.sum((1, 2)).clamp(min=1)
    return Loss({"preference": each_B.sum()}, readings(score_BK, batch["rank"], losses_BKK, batch["targets"]))


def pairwise(score_BK: Tensor, rank_BK: Tensor, margin_B: Tensor) -> tuple[Tensor, Tensor]:
    """-log P of each pair, and which pairs there are: (i, j) with i better, or equal and i before j."""
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
    """-log P of the order, summed over questions."""
    score_BK = scores(models, batch)
    losses_B = ordered(score_BK, batch["rank"])
    pairs_BKK, _ = pairwise(score_BK, batch["rank"], torch.zeros_like(batch["margin"]))
    return Loss({"preference": losses_B.sum()}, readings(score_BK, batch["rank"], pairs_BKK, batch["targets"]))


def ordered(score_BK: Tensor, rank_BK: Tensor) -> Tensor:
    """-log P(order) of each row."""
    absent_BK = rank_BK < 0
    order = rank_BK.masked_fill(absent_BK, rank_BK.max().item() + 1).argsort(dim=1, stable=True)
    score, absent = score_BK.gather(1, order), absent_BK.gather(1, order)
    rest = score.masked_fill(absent, -torch.inf).flip(1).logcumsumexp(1).flip(1)
    return torch.where(absent, 0.0, rest.masked_fill(absent, 0.0) - score).sum(1)


def readings(
    score_BK: Tensor, rank_BK: Tensor, losses_BKK: Tensor, targets_BKT: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Accuracy, calibration and length bias of the pairs that are no ties.

    confidence - accuracy is how sure the model is beyond what it gets right. longer: how often it prefers the longer
    answer; compare with longer_is_better, how often that is right.
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
