"""GRPO (Shao and others, 2024) and RLOO (Ahmadian and others, 2024): several answers to each question, judged against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor, nn

from sanbu.noise import Noise
from sanbu.objectives.objective import Batch, Loss, Models, Objective, Turn
from sanbu.objectives.policy import Coefficient, answered, clipped, count_tokens, health, passes, policy_logprobs, taught
from sanbu.objectives.rollout import Reward


def relative(
    judge: Callable[[Tensor, int], Tensor],
    rewards: Sequence[Reward],
    samples: int,
    epochs: int,
    parts: int,
    clip: float,
    kl: float,
    unfinished: float,
) -> Objective:
    """Rounds of groups; `judge(reward_N, samples)` gives each answer its advantage."""

    def attach(model: nn.Module) -> dict[str, nn.Module]:
        return {"kl": Coefficient(kl, None)}

    def experience(models: Models, batch: Batch, noise: Noise) -> Batch:
        rollout = answered(models, batch, noise, samples, rewards, unfinished)
        return rollout | {"advantage": judge(rollout["reward"], samples)}

    def turns(models: Models, batch: Batch, noise: Noise) -> Iterator[Turn]:
        return passes(models, batch, noise, partial(loss, clip), count, epochs, parts)

    return Objective(
        partial(loss, clip), count, attach=attach, experience=experience, turns=turns, watched="wrong"
    )


def loss(clip: float, models: Models, batch: Batch) -> Loss:
    """The clipped loss, and the KL from the reference as a term that is never negative."""
    there = taught(batch)
    now = policy_logprobs(models, batch)
    each, ratio, held = clipped(now, batch["old"], batch["advantage"][:, None], clip)
    apart = (batch["reference"] - now) * there
    divergence = batch["beta"][:, None] * (apart.exp() - apart - 1)
    sums = {"policy": (each * there).sum(), "divergence": divergence.sum()}
    return Loss(sums, health(now, ratio, held, batch))


def count(batch: Batch) -> dict[str, float]:
    """Both terms are means over tokens."""
    return count_tokens(batch, "policy", "divergence")
