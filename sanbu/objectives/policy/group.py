"""GRPO (Shao and others, 2024), RLOO (Ahmadian and others, 2024): advantages relative to a group of answers."""

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
    answered,
    clipped,
    count_tokens,
    grouped,
    health,
    left_out,
    passes,
    policy_logprobs,
    taught,
    trimmed,
)
from sanbu.space import Batch, Models


class GroupConfig(PolicyConfig):
    """What the group methods have in common."""

    samples: int = Field(8, ge=2, description="answers to each question")


class GRPO(GroupConfig):
    """Group-relative policy optimisation: advantages in deviations of the group."""

    kind: Literal["grpo"] = "grpo"

    def build(self) -> Objective:
        return relative(self, grouped)


class RLOO(GroupConfig):
    """REINFORCE with the other answers of the group as baseline."""

    kind: Literal["rloo"] = "rloo"

    def build(self) -> Objective:
        return relative(self, left_out)


def relative(config: GroupConfig, judge: Callable[[Tensor, int], Tensor]) -> Objective:
    """Rounds of groups; `judge(reward_N, samples)` gives each answer its advantage."""
    rewards = [reward.build() for reward in config.rewards]

    def attach(model: nn.Module) -> dict[str, nn.Module]:
        return {"kl": Coefficient(config.kl, None)}

    def experience(round: Round) -> Batch:
        rollout = answered(round, config.samples, rewards, config.unfinished)
        return taught_only(rollout | {"advantage": judge(rollout["reward"], config.samples)}, config.samples)

    def turns(round: Round) -> Iterator[Turn]:
        return passes(round, partial(loss, config.clip), count, config.epochs, config.parts)

    return Objective(
        partial(loss, config.clip), count, attach=attach, experience=experience, turns=turns, watched="wrong"
    )


def taught_only(rollout: Batch, samples: int) -> Batch:
    """Drop groups with equal rewards, which have no gradient (Yu and others, 2025); at least one group stays."""
    kept = (rollout["advantage"].view(-1, samples) != 0).any(1)
    kept[0] |= ~kept.any()
    rows = kept.repeat_interleave(samples)
    return {name: tensor[rows] for name, tensor in rollout.items()}


def loss(clip: float, models: Models, batch: Batch) -> Loss:
    """The clipped loss, and half the squared gap from the reference, whose gradient over own answers is that of the KL.

    The published term, exp(d) - d - 1, has the gradient of the KL the other way round, and another optimum than ref
    exp(r / beta).
    """
    batch = trimmed(batch | {"advantage": batch["advantage"][:, None].expand(batch["tokens"].shape)})
    there = taught(batch)
    now = policy_logprobs(models, batch)
    each, ratio, held = clipped(now, batch["old"], batch["advantage"], clip)
    apart = (batch["reference"] - now) * there
    divergence = batch["beta"][:, None] * apart.square() / 2
    sums = {"policy": (each * there).sum(), "divergence": divergence.sum()}
    return Loss(sums, health(now, ratio, held, batch))


def count(batch: Batch) -> dict[str, float]:
    """Both terms are means over tokens."""
    return count_tokens(batch, "policy", "divergence")
