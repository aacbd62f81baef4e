"""Learning from preferences without a reward model, by what policy and reference give the better and the worse answer.

With h_w = log pi(y_w) - log ref(y_w), h_l likewise, and h = h_w - h_l: DPO   -log sigmoid(beta h)
(Rafailov and others, 2023) cDPO  -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)             labels wrong with
chance e (Mitchell, 2023) IPO   (h - 1 / (2 beta))^2, h of means over tokens                      (Azar and others,
2024) KTO   1 - sigmoid(beta (h_w - z)) + 1 - sigmoid(beta (z - h_l)), z the KL of policy and reference (Ethayarajh
and others, 2024) The reward of the chosen answer, beta h_w, may fall while the margin rises: both get less likely,
the worse one faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.objectives.answers import answer_logprobs, count_term, fraction, logprobs, with_reference
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.space import Batch, Models

PairLoss = Callable[[Tensor, Batch], Tensor]  # h_B2 of better and worse -> loss_B


class PairConfig(ObjectiveConfig):
    """What objectives on pairs have in common; parents.reference is the reference policy."""

    families: ClassVar[tuple[str, ...]] = ("tokens",)
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference policy")

    def needs(self) -> tuple[str, ...]:
        return ("reference",)


class DPO(PairConfig):
    """Direct preference optimisation."""

    kind: Literal["dpo"] = "dpo"

    def build(self) -> Objective:
        return dpo(self.beta)


def dpo(beta: float) -> Objective:
    """Direct preference optimisation."""

    def loss(h_B2: Tensor, batch: Batch) -> Tensor:
        return -F.logsigmoid(beta * (h_B2[:, 0] - h_B2[:, 1]))

    return of_pairs(loss, beta)


class ConservativeDPO(PairConfig):
    """DPO for labels of which some are wrong."""

    kind: Literal["conservative-dpo"] = "conservative-dpo"
    wrong: float = Field(0.1, ge=0, lt=0.5, description="chance that a label is wrong")

    def build(self) -> Objective:
        return conservative_dpo(self.beta, self.wrong)


def conservative_dpo(beta: float, wrong: float) -> Objective:
    """DPO for labels that are wrong with a known chance."""

    def loss(h_B2: Tensor, batch: Batch) -> Tensor:
        margin = beta * (h_B2[:, 0] - h_B2[:, 1])
        return -(1 - wrong) * F.logsigmoid(margin) - wrong * F.logsigmoid(-margin)

    return of_pairs(loss, beta)


class IPO(PairConfig):
    """Identity preference optimisation: no margin grows without end."""

    kind: Literal["ipo"] = "ipo"

    def build(self) -> Objective:
        return ipo(self.beta)


def ipo(beta: float) -> Objective:
    """Identity preference optimisation: a margin of 1 / (2 beta) a token is enough."""

    def loss(h_B2: Tensor, batch: Batch) -> Tensor:
        tokens_B2 = (batch["targets"] >= 0).sum(2).clamp(min=1)
        mean = h_B2 / tokens_B2
        return (mean[:, 0] - mean[:, 1] - 1 / (2 * beta)).square()

    return of_pairs(loss, beta)


class KTO(PairConfig):
    """Kahneman-Tversky optimisation: each answer judged by itself."""

    kind: Literal["kto"] = "kto"

    def build(self) -> Objective:
        return kto(self.beta)


def kto(beta: float) -> Objective:
    """Kahneman-Tversky optimisation: each answer by itself, relative to the policy's general KL."""

    def loss(h_B2: Tensor, batch: Batch) -> Tensor:
        z = batch["moved"]
        better, worse = h_B2.unbind(1)
        return 2 - (beta * (better - z)).sigmoid() - (beta * (z - worse)).sigmoid()

    return of_pairs(loss, beta, with_moved)


def of_pairs(pair_loss: PairLoss, beta: float, experience: Callable[[Round], Batch] | None = None) -> Objective:
    """An objective from a loss of h."""

    def loss(models: Models, batch: Batch) -> Loss:
        policy_B2 = answer_logprobs(models["model"], batch)
        h_B2 = policy_B2 - batch["reference"]
        reward = beta * h_B2.detach()
        count = torch.tensor(float(len(reward)))
        metrics = {
            "accuracy": fraction(reward[:, 0] > reward[:, 1]),
            "margin": ((reward[:, 0] - reward[:, 1]).sum(), count),
            "reward_chosen": (reward[:, 0].sum(), count),
            "reward_rejected": (reward[:, 1].sum(), count),
        }
        return Loss({"preference": pair_loss(h_B2, batch).sum()}, metrics)

    return Objective(loss, partial(count_term, "preference"), experience=experience or reference, fixed=fixed)


def fixed(models: Models, batch: Batch) -> Batch:
    """What the reference gives the answers."""
    return {"reference": answer_logprobs(models["reference"], batch)}


def reference(round: Round) -> Batch:
    """The round's pairs with what the reference gives them."""
    return with_reference(round.models, round.batch)


def with_moved(round: Round) -> Batch:
    """KTO's z: mean of log pi - log ref over answers to other questions, at least 0; it couples rows."""
    models, batch = round.models, with_reference(round.models, round.batch)
    tokens, targets = mismatched(batch)
    policy, reference = (logprobs(models[name], tokens, targets).sum(1) for name in ("model", "reference"))
    gap = policy - reference
    return batch | {"moved": gap.mean().clamp(min=0).expand(len(tokens)).clone()}


def mismatched(batch: Batch) -> tuple[Tensor, Tensor]:
    """Each question with the better answer of the row before it."""
    tokens, targets = batch["tokens"][:, 0], batch["targets"][:, 0]
    start = (targets >= 0).int().argmax(1) + 1  # the first token of each answer
    length = batch["last"][:, 0] + 1
    size = length.roll(1) - start.roll(1)
    width = int((start + size).max())
    place = torch.arange(width, device=tokens.device).expand(len(tokens), -1)
    moved = place - start[:, None] + start.roll(1)[:, None]
    source = moved.clamp(0, tokens.shape[1] - 1)
    own = F.pad(tokens, (0, max(0, width - tokens.shape[1])))[:, :width]
    answer = (place >= start[:, None]) & (place < (start + size)[:, None])
    mixed = torch.where(answer, tokens.roll(1, 0).gather(1, source), own)
    target = F.pad(torch.where(answer, mixed, -100)[:, 1:], (0, 1), value=-100)
    return mixed, target
