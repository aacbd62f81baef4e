"""Learning from preferences without a reward model. y_w is the better answer, y_l the worse one.

With h_w = log pi(y_w) - log ref(y_w), h_l likewise, and h = h_w - h_l:

DPO    -log sigmoid(beta h)                                         (Rafailov and others, 2023)
cDPO   -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)        (Mitchell, 2023), labels wrong with probability e
IPO    (h - 1 / (2 beta))^2, h of means over tokens                 (Azar and others, 2024)
KTO    2 - sigmoid(beta (h_w - z)) - sigmoid(beta (z - h_l))        (Ethayarajh and others, 2024), z a KL estimate

The reward of the better answer, beta h_w, may fall while the margin rises: both answers become less likely, the worse
one faster.
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
from sanbu.space import IGNORED, Batch, Models

PairLoss = Callable[[Tensor, Batch], Tensor]  # h_B2 of the better and the worse answer -> loss_B


class PairConfig(ObjectiveConfig):
    """Fields of all objectives on pairs; parents.reference is the reference policy."""

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

    return pair_objective(loss, beta)


class ConservativeDPO(PairConfig):
    """DPO with label smoothing, for labels that may be wrong."""

    kind: Literal["conservative-dpo"] = "conservative-dpo"
    wrong: float = Field(0.1, ge=0, lt=0.5, description="probability that a label is wrong")

    def build(self) -> Objective:
        return conservative_dpo(self.beta, self.wrong)


def conservative_dpo(beta: float, wrong: float) -> Objective:
    """DPO for labels that are wrong with a known probability."""

    def loss(h_B2: Tensor, batch: Batch) -> Tensor:
        margin = beta * (h_B2[:, 0] - h_B2[:, 1])
        return -(1 - wrong) * F.logsigmoid(margin) - wrong * F.logsigmoid(-margin)

    return pair_objective(loss, beta)


class IPO(PairConfig):
    """Identity preference optimisation: the margin has a finite target."""

    kind: Literal["ipo"] = "ipo"

    def build(self) -> Objective:
        return ipo(self.beta)


def ipo(beta: float) -> Objective:
    """Identity preference optimisation: the target of the margin is 1 / (2 beta) per token."""

    def loss(h_B2: Tensor, batch: Batch) -> Tensor:
        tokens_B2 = (batch["targets"] >= 0).sum(2).clamp(min=1)
        mean = h_B2 / tokens_B2
        return (mean[:, 0] - mean[:, 1] - 1 / (2 * beta)).square()

    return pair_objective(loss, beta)


class KTO(PairConfig):
    """Kahneman-Tversky optimisation: each answer has a loss of its own."""

    kind: Literal["kto"] = "kto"

    def build(self) -> Objective:
        return kto(self.beta)


def kto(beta: float) -> Objective:
    """Kahneman-Tversky optimisation: each answer on its own, relative to the KL of policy and reference."""

    def loss(h_B2: Tensor, batch: Batch) -> Tensor:
        z = batch["moved"]
        better, worse = h_B2.unbind(1)
        return 2 - (beta * (better - z)).sigmoid() - (beta * (z - worse)).sigmoid()

    return pair_objective(loss, beta, add_policy_kl)


def pair_objective(pair_loss: PairLoss, beta: float, experience: Callable[[Round], Batch] | None = None) -> Objective:
    """The objective of a loss on h."""

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

    return Objective(
        loss,
        partial(count_term, "preference"),
        experience=experience or add_reference,
        fixed=reference_logprobs,
        alone=experience is None,
    )


def reference_logprobs(models: Models, batch: Batch) -> Batch:
    """The log-probability of each answer under the reference."""
    return {"reference": answer_logprobs(models["reference"], batch)}


def add_reference(round: Round) -> Batch:
    """The pairs of a round with their log-probabilities under the reference."""
    return with_reference(round.models, round.batch)


def add_policy_kl(round: Round) -> Batch:
    """z of KTO: the mean of log pi - log ref over mismatched answers, at least 0. It couples rows."""
    models, batch = round.models, with_reference(round.models, round.batch)
    tokens, targets = mismatched(batch)
    policy, reference = (logprobs(models[name], tokens, targets).sum(1) for name in ("model", "reference"))
    gap = policy - reference
    return batch | {"moved": gap.mean().clamp(min=0).expand(len(tokens)).clone()}


def mismatched(batch: Batch) -> tuple[Tensor, Tensor]:
    """tokens_BT and targets_BT of each question with the better answer of the previous row."""
    tokens_BT, targets_BT = batch["tokens"][:, 0], batch["targets"][:, 0]
    start_B1 = (targets_BT >= 0).int().argmax(1)[:, None] + 1  # position of the first answer token
    length_B1 = batch["last"][:, :1] + 1
    other_start_B1 = start_B1.roll(1, 0)  # of the previous row, whose answer is taken
    end_B1 = start_B1 + length_B1.roll(1, 0) - other_start_B1
    width = int(end_B1.max())
    position_BT = torch.arange(width, device=tokens_BT.device).expand(len(tokens_BT), -1)
    source_BT = (position_BT - start_B1 + other_start_B1).clamp(0, tokens_BT.shape[1] - 1)
    question_BT = F.pad(tokens_BT, (0, max(0, width - tokens_BT.shape[1])))[:, :width]
    in_answer_BT = (position_BT >= start_B1) & (position_BT < end_B1)
    mixed_BT = torch.where(in_answer_BT, tokens_BT.roll(1, 0).gather(1, source_BT), question_BT)
    next_BT = torch.where(in_answer_BT, mixed_BT, IGNORED)[:, 1:]
    return mixed_BT, F.pad(next_BT, (0, 1), value=IGNORED)
