"""GRPO (Shao and others, 2024) and RLOO (Ahmadian and others, 2024): several answers to each question, judged against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor, nn

from sanbu.noise import Noise
from sanbu.objectives.objective import Batch, Loss, Models, Objective, Turn
from sanbu.objectives.policy import (
    Coefficient,
    answered,
    clipped,
    count_tokens,
    health,
    passes,
    policy_logprobs,
    taught,
    trimmed,
)
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
        return taught_only(rollout | {"advantage": judge(rollout["reward"], samples)}, samples)

    def turns(models: Models, batch: Batch, noise: Noise) -> Iterator[Turn]:
        return passes(models, batch, noise, partial(loss, clip), count, epochs, parts)

    return Objective(partial(loss, clip), count, attach=attach, experience=experience, turns=turns, watched="wrong")


def taught_only(rollout: Batch, samples: int) -> Batch:
    """Without the groups whose answers are all equally good, which teach nothing (Yu and others, 2025); one group at least stays."""
    kept = (rollout["advantage"].view(-1, samples) != 0).any(1)
    kept[0] |= ~kept.any()
    rows = kept.repeat_interleave(samples)
    return {name: tensor[rows] for name, tensor in rollout.items()}


def loss(clip: float, models: Models, batch: Batch) -> Loss:
    """The clipped loss, and half the squared gap from the reference, whose gradient over own answers is that of the KL.

    The published term, exp(d) - d - 1, has the gradient of the KL the other way round, and another optimum than ref exp(r / beta).
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
