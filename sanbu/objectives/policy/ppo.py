"""PPO on language models with a value function (Ziegler and others, 2019; Ouyang and others, 2022).

The reward of a token is -beta (log pi_old - log ref); the last token of an answer also gets the reward of the answer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from sanbu.models.scorers.scorer import ScorerNetwork
from sanbu.objectives.answers import by_length
from sanbu.objectives.objective import Loss, Objective, Round, Turn
from sanbu.objectives.policy.policy import (
    Coefficient,
    PolicyConfig,
    advantages,
    answer_mask,
    clipped_loss,
    clipped_value_loss,
    count_tokens,
    passes,
    policy_logprobs,
    policy_metrics,
    sample_rollout,
    text_loss,
    trimmed,
    whitened,
)
from sanbu.objectives.policy.rewards import Reward
from sanbu.space import Batch, Models


class PPO(PolicyConfig):
    """Proximal policy optimisation with a value function."""

    kind: Literal["ppo"] = "ppo"
    kl_target: float | None = Field(
        None, gt=0, description="target KL per answer for an adaptive coefficient; none keeps it fixed"
    )
    value_clip: float = Field(0.2, gt=0, description="clip range of the value function")
    value_weight: float = Field(0.5, ge=0, description="weight of the value loss")
    discount: float = Field(1.0, gt=0, le=1, description="discount factor gamma")
    trace: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation (GAE)")
    mix_weight: float = Field(1.0, ge=0, description="weight of the pretraining loss (ptx), with data.mix")
    whiten_rewards: bool = Field(False, description="scale the rewards of a round to standard deviation 1")

    def build(self) -> Objective:
        return ppo(self)


def ppo(config: PPO) -> Objective:
    """The objective: each round samples answers, computes advantages and makes a few passes over them."""
    rewards = [reward.build() for reward in config.rewards]
    count = partial(count_terms, ("policy", "value"))

    def attach(model: nn.Module) -> dict[str, nn.Module]:
        decoder: Any = copy.deepcopy(model)
        value = ScorerNetwork(decoder, decoder.embedding.tokens.weight.shape[1], 1)
        return {"value": value, "kl": Coefficient(config.kl, config.kl_target)}

    def turns(round: Round) -> Iterator[Turn]:
        return passes(round, partial(loss, config), count, config.epochs, config.parts)

    return Objective(
        partial(loss, config),
        count,
        {"model": ("model", "value")},
        attach=attach,
        experience=partial(experience, config, rewards),
        turns=turns,
        watched="wrong",
    )


def experience(config: PPO, rewards: Sequence[Reward], round: Round) -> Batch:
    """A rollout with the value, target and advantage of each token; advantages are whitened over the round."""
    batch = sample_rollout(round, config.samples, rewards, config.unfinished)
    mask = answer_mask(batch)
    each = partial(values, round.models, batch["tokens"])
    value = by_length(each, batch["length"], over=round.over) * mask
    reward = token_rewards(batch, config.whiten_rewards)
    advantage = advantages(reward, value, mask, config.discount, config.trace)
    target = advantage + value
    unexplained = (target - value)[mask].var(correction=0)
    explained = 1 - unexplained / target[mask].var(correction=0).clamp(min=1e-8)
    statistics = {"told_explained_variance": explained.expand(len(mask)).clone()}
    return batch | statistics | {"value": value, "target": target, "advantage": whitened(advantage, mask)}


def values(models: Models, tokens: Tensor, rows: Tensor, width: int) -> Tensor:
    """The value of each token of some rows."""
    value: Tensor = models["value"](tokens[rows, :width])
    return value[..., 0].float()


def token_rewards(batch: Batch, whiten: bool) -> Tensor:
    """The KL penalty of each token, plus the reward of the answer at its last token, [N, T]."""
    mask = answer_mask(batch)
    reward = -batch["beta"][:, None] * (batch["old"] - batch["reference"]) * mask
    last = mask.int().cumsum(1).argmax(1)
    reward = reward.scatter_add(1, last[:, None], batch["reward"][:, None])
    return whitened(reward, mask, shift=False) if whiten else reward


def loss(config: PPO, models: Models, batch: Batch) -> Loss:
    """The clipped policy loss, the clipped value loss, and the pretraining loss if there is text."""
    batch = trimmed(batch)
    mask = answer_mask(batch)
    now = policy_logprobs(models, batch)
    losses, ratio, is_clipped = clipped_loss(now, batch["old"], batch["advantage"], config.clip)
    value = models["value"](batch["tokens"])[..., 0].float()
    error = clipped_value_loss(value, batch["value"], batch["target"], config.value_clip)
    sums = {"policy": (losses * mask).sum(), "value": config.value_weight * (error * mask).sum()}
    return Loss(sums | text_loss(models, batch, config.mix_weight), policy_metrics(now, ratio, is_clipped, batch))


def count_terms(terms: tuple[str, ...], batch: Batch) -> dict[str, float]:
    """All terms are means over tokens."""
    return count_tokens(batch, *terms)
