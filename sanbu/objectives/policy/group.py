"""GRPO and RLOO: policy optimisation with advantages relative to a group of answers to the same question.

GRPO   A = (R - mean of the group) / standard deviation of the group   (Shao and others, 2024)
RLOO   A = R - mean of the other answers of the group                   (Ahmadian and others, 2024)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sanbu.objectives.objective import Loss, Objective, Round, Turn
from sanbu.objectives.policy.policy import (
    Coefficient,
    PolicyConfig,
    answer_mask,
    clipped_loss,
    count_tokens,
    group_advantages,
    leave_one_out_advantages,
    passes,
    policy_logprobs,
    policy_metrics,
    sample_rollout,
    trimmed,
)
from sanbu.space import Batch, Models


class GroupConfig(PolicyConfig):
    """Fields of the group methods."""

    samples: int = Field(8, ge=2, description="answers per question")


class GRPO(GroupConfig):
    """Group-relative policy optimisation: advantages in standard deviations of the group."""

    kind: Literal["grpo"] = "grpo"

    def build(self) -> Objective:
        return group_objective(self, group_advantages)


class RLOO(GroupConfig):
    """REINFORCE with a leave-one-out baseline: the mean reward of the other answers of the group."""

    kind: Literal["rloo"] = "rloo"

    def build(self) -> Objective:
        return group_objective(self, leave_one_out_advantages)


def group_objective(config: GroupConfig, advantages: Callable[[Tensor, int], Tensor]) -> Objective:
    """The objective of a group method; advantages(reward_N, samples) -> advantage_N."""
    rewards = [reward.build() for reward in config.rewards]

    def attach(model: nn.Module) -> dict[str, nn.Module]:
        return {"kl": Coefficient(config.kl, None)}

    def experience(round: Round) -> Batch:
        rollout = sample_rollout(round, config.samples, rewards, config.unfinished)
        return drop_equal_groups(rollout | {"advantage": advantages(rollout["reward"], config.samples)}, config.samples)

    def turns(round: Round) -> Iterator[Turn]:
        return passes(round, partial(loss, config.clip), count, config.epochs, config.parts)

    return Objective(
        partial(loss, config.clip), count, attach=attach, experience=experience, turns=turns, watched="wrong"
    )


def drop_equal_groups(rollout: Batch, samples: int) -> Batch:
    """The rollout without groups of equal rewards, which have no gradient (Yu and others, 2025); one group is kept."""
    kept = (rollout["advantage"].view(-1, samples) != 0).any(1)
    if not kept.any():
        kept[0] = True
    rows = kept.repeat_interleave(samples)
    return {name: tensor[rows] for name, tensor in rollout.items()}


def loss(clip: float, models: Models, batch: Batch) -> Loss:
    """The clipped policy loss, and (log pi - log ref)^2 / 2, whose expected gradient is that of KL(pi || ref).

    The published term, exp(d) - d - 1 with d = log ref - log pi, has the gradient of KL(ref || pi), so its optimum is
    not ref exp(r / beta).
    """
    batch = trimmed(batch | {"advantage": batch["advantage"][:, None].expand(batch["tokens"].shape)})
    mask = answer_mask(batch)
    now = policy_logprobs(models, batch)
    losses, ratio, is_clipped = clipped_loss(now, batch["old"], batch["advantage"], clip)
    difference = (batch["reference"] - now) * mask
    divergence = batch["beta"][:, None] * difference.square() / 2
    sums = {"policy": (losses * mask).sum(), "divergence": divergence.sum()}
    return Loss(sums, policy_metrics(now, ratio, is_clipped, batch))


def count(batch: Batch) -> dict[str, float]:
    """Both terms are means over answer tokens."""
    return count_tokens(batch, "policy", "divergence")
