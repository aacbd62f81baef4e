"""PPO on language (Ziegler and others, 2019; Ouyang and others, 2022): a value function tells how much better an answer was than expected.

The reward of a token is -beta (log pi_old - log ref), and the reward of the answer comes with its last token.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from sanbu.models.scorer import Scorer
from sanbu.noise import Noise
from sanbu.objectives.objective import Batch, Loss, Models, Objective, Turn
from sanbu.objectives.policy import (
    Coefficient,
    advantages,
    answered,
    clipped,
    clipped_value,
    count_tokens,
    health,
    mixed,
    passes,
    policy_logprobs,
    taught,
    trimmed,
    whitened,
)
from sanbu.objectives.rollout import Reward


@dataclass(frozen=True)
class Settings:
    """PPO's numbers; see objectives/kinds.py for what they mean."""

    samples: int
    epochs: int
    parts: int
    clip: float
    value_clip: float
    value_weight: float
    discount: float
    trace: float
    kl: float
    kl_target: float | None
    mix_weight: float
    unfinished: float
    whiten_rewards: bool


def ppo(settings: Settings, rewards: Sequence[Reward]) -> Objective:
    """Rounds of answers, advantages, and a few passes over them."""

    def attach(model: nn.Module) -> dict[str, nn.Module]:
        value = Scorer(copy.deepcopy(model), model.embedding.tokens.weight.shape[1], 1)  # type: ignore[union-attr,arg-type,index]
        return {"value": value, "kl": Coefficient(settings.kl, settings.kl_target)}

    def turns(models: Models, batch: Batch, noise: Noise) -> Iterator[Turn]:
        count = partial(count_terms, ("policy", "value"))
        return passes(models, batch, noise, partial(loss, settings), count, settings.epochs, settings.parts)

    return Objective(
        partial(loss, settings),
        partial(count_terms, ("policy", "value")),
        {"model": ("model", "value")},
        attach=attach,
        experience=partial(experience, settings, rewards),
        turns=turns,
        watched="wrong",
    )


def experience(settings: Settings, rewards: Sequence[Reward], models: Models, batch: Batch, noise: Noise) -> Batch:
    """Answers with the advantage of each of their tokens, whitened over the round."""
    batch = answered(models, batch, noise, settings.samples, rewards, settings.unfinished)
    there = taught(batch)
    value = models["value"](batch["tokens"])[..., 0].float() * there
    reward = token_rewards(batch, settings.whiten_rewards)
    advantage = advantages(reward, value, there, settings.discount, settings.trace)
    target = advantage + value
    explained = 1 - (target - value)[there].var(correction=0) / target[there].var(correction=0).clamp(min=1e-8)
    told = {"told_explained_variance": explained.expand(len(there)).clone()}
    return batch | told | {"value": value, "target": target, "advantage": whitened(advantage, there)}


def token_rewards(batch: Batch, whiten: bool) -> Tensor:
    """The KL's share at every token, and the answer's reward at its last."""
    there = taught(batch)
    reward = -batch["beta"][:, None] * (batch["old"] - batch["reference"]) * there
    last = there.int().cumsum(1).argmax(1)
    reward = reward.scatter_add(1, last[:, None], batch["reward"][:, None])
    return whitened(reward, there, shift=False) if whiten else reward


def loss(settings: Settings, models: Models, batch: Batch) -> Loss:
    """The clipped policy loss, the clipped value loss, and the loss on text where some is mixed in."""
    batch = trimmed(batch)
    there = taught(batch)
    now = policy_logprobs(models, batch)
    each, ratio, held = clipped(now, batch["old"], batch["advantage"], settings.clip)
    value = models["value"](batch["tokens"])[..., 0].float()
    error = clipped_value(value, batch["value"], batch["target"], settings.value_clip)
    sums = {"policy": (each * there).sum(), "value": settings.value_weight * (error * there).sum()}
    return Loss(sums | mixed(models, batch, settings.mix_weight), health(now, ratio, held, batch))


def count_terms(terms: tuple[str, ...], batch: Batch) -> dict[str, float]:
    """Every term is a mean over tokens."""
    return count_tokens(batch, *terms)
