"""REINFORCE, the plainest policy gradient: E[(R - b) grad log pi(answer)] (Williams, 1992).

The baseline b is the mean reward of the other answers of the round, which does not depend on the answer itself, so the
gradient stays unbiased. One update per round, no ratio and no clipping; the KL term is that of the group methods.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.objectives.policy.policy import (
    Coefficient,
    answer_mask,
    count_tokens,
    leave_one_out_advantages,
    policy_logprobs,
    sample_rollout,
    trimmed,
)
from sanbu.objectives.policy.rewards import Checked, Learned, RewardConfig
from sanbu.objectives.policy.rollout import round_metrics
from sanbu.space import Batch, Models


class Reinforce(ObjectiveConfig):
    """The policy gradient with the mean reward of the other answers as baseline."""

    kind: Literal["reinforce"] = "reinforce"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    rollouts: ClassVar[bool] = True
    rewards: tuple[RewardConfig, ...] = Field((Checked(),), min_length=1, description="rewards of an answer, summed")
    samples: int = Field(1, ge=1, description="answers per question")
    kl: float = Field(0.05, ge=0, description="KL coefficient")
    unfinished: float = Field(-1.0, description="reward added to an answer without end token")

    def needs(self) -> tuple[str, ...]:
        return ("reference", *("reward" for reward in self.rewards if isinstance(reward, Learned)))

    def build(self) -> Objective:
        return reinforce(self)


def reinforce(config: Reinforce) -> Objective:
    """One answer, one reward, one step along the gradient."""
    rewards = [reward.build() for reward in config.rewards]

    def attach(model: nn.Module) -> dict[str, nn.Module]:
        return {"kl": Coefficient(config.kl, None)}

    def experience(round: Round) -> Batch:
        rollout = sample_rollout(round, config.samples, rewards, config.unfinished)
        return rollout | {"advantage": against_the_others(rollout["reward"])}

    return Objective(loss, count, attach=attach, experience=experience, watched="wrong")


def against_the_others(reward_N: Tensor) -> Tensor:
    """Each reward minus the mean of the others; 0 for one answer alone."""
    return leave_one_out_advantages(reward_N, len(reward_N))


def loss(models: Models, batch: Batch) -> Loss:
    """-A log pi over answer tokens, and (log pi - log ref)^2 / 2 as in the group methods."""
    batch = trimmed(batch | {"advantage": batch["advantage"][:, None].expand(batch["tokens"].shape)})
    mask, now = answer_mask(batch), policy_logprobs(models, batch)
    difference = (batch["reference"] - now) * mask
    divergence = batch["beta"][:, None] * difference.square() / 2
    sums = {"policy": -(batch["advantage"] * now * mask).sum(), "divergence": divergence.sum()}
    return Loss(sums, round_metrics(batch))


def count(batch: Batch) -> dict[str, float]:
    """Both terms are means over answer tokens."""
    return count_tokens(batch, "policy", "divergence")
