"""Policy optimisation on answers sampled from the model: what PPO, GRPO and RLOO share.

PPO    -min(r A, clip(r, 1 - e, 1 + e) A), r = pi / pi_old          (Schulman and others, 2017; Ouyang and others, 2022)
GAE    A_t = sum_k (g l)^k d_(t+k), d_t = R_t + g V_(t+1) - V_t     (Schulman and others, 2016)
GRPO   A = (R - mean of the group) / standard deviation             (Shao and others, 2024)
RLOO   A = R - mean of the other answers of the group               (Ahmadian and others, 2024)

In PPO, the KL from the reference is part of the reward; in the group methods, it is a loss, (log pi - log ref)^2 / 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.objectives.answers import logprobs
from sanbu.objectives.next_token import cross_entropy
from sanbu.objectives.objective import Count, LossFunction, ObjectiveConfig, Round, Turn
from sanbu.objectives.policy.rewards import Checked, Learned, Reward, RewardConfig
from sanbu.objectives.policy.rollout import add_reference, add_rewards, draw_answers, round_metrics, round_statistics
from sanbu.space import IGNORED, Batch, Models


class PolicyConfig(ObjectiveConfig):
    """Fields of all policy objectives; they need parents.reference, and parents.reward for a learned reward."""

    families: ClassVar[tuple[str, ...]] = ("tokens",)
    rollouts: ClassVar[bool] = True
    rewards: tuple[RewardConfig, ...] = Field((Checked(),), min_length=1, description="rewards of an answer, summed")
    samples: int = Field(1, ge=1, description="answers per question")
    epochs: int = Field(1, ge=1, description="passes over the answers of a round")
    parts: int = Field(1, ge=1, description="updates per pass")
    clip: float = Field(0.2, gt=0, description="PPO clip range: the ratio counts only within 1 +- clip")
    kl: float = Field(0.05, ge=0, description="KL coefficient")
    unfinished: float = Field(-1.0, description="reward added to an answer without end token")

    def needs(self) -> tuple[str, ...]:
        return ("reference", *("reward" for reward in self.rewards if isinstance(reward, Learned)))


def advantages(rewards_NT: Tensor, values_NT: Tensor, mask_NT: Tensor, discount: float, trace: float) -> Tensor:
    """Generalised advantage estimates, [N, T]; tokens outside the mask have no value and no reward."""
    mask = mask_NT.to(rewards_NT.dtype)
    rewards, values = rewards_NT.where(mask_NT, 0.0), values_NT.where(mask_NT, 0.0)
    result, ahead = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    after = torch.zeros_like(ahead)
    for t in reversed(range(rewards.shape[1])):
        difference = rewards[:, t] + discount * after - values[:, t]
        ahead = torch.where(mask_NT[:, t], difference + discount * trace * ahead, ahead)
        after = torch.where(mask_NT[:, t], values[:, t], after)
        result[:, t] = ahead * mask[:, t]
    return result


def whitened(values_NT: Tensor, mask_NT: Tensor, shift: bool = True) -> Tensor:
    """Values scaled to standard deviation 1 over the mask and, with shift, moved to mean 0."""
    kept = values_NT[mask_NT]
    mean, deviation = kept.mean(), kept.std(correction=0) + 1e-8
    return torch.where(mask_NT, (values_NT - mean) / deviation + (0.0 if shift else mean), 0.0)


def group_advantages(rewards_N: Tensor, samples: int) -> Tensor:
    """Advantages of GRPO, [N]; they are 0 in a group of equal rewards."""
    groups = rewards_N.view(-1, samples)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, correction=0, keepdim=True) + 1e-4)).flatten()


def leave_one_out_advantages(rewards_N: Tensor, samples: int) -> Tensor:
    """Advantages of RLOO, [N]."""
    groups = rewards_N.view(-1, samples)
    return ((groups - groups.mean(1, keepdim=True)) * (samples / max(samples - 1, 1))).flatten()


def clipped_loss(now_NT: Tensor, old_NT: Tensor, advantage_NT: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """The PPO loss of each token, the probability ratio, and where the ratio is clipped."""
    ratio = (now_NT - old_NT).exp()
    unclipped = ratio * advantage_NT
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantage_NT
    return -torch.minimum(unclipped, clipped), ratio, clipped < unclipped


def clipped_value_loss(now_NT: Tensor, old_NT: Tensor, target_NT: Tensor, clip: float) -> Tensor:
    """Half the squared error of the value, or of the value clipped to old +- clip, whichever is larger."""
    clipped = old_NT + (now_NT - old_NT).clamp(-clip, clip)
    return torch.maximum((now_NT - target_NT).square(), (clipped - target_NT).square()) / 2


class Coefficient(nn.Module):
    """The KL coefficient; with a target KL, it adapts by at most 2% per round (Ziegler and others, 2019)."""

    value: Tensor

    def __init__(self, value: float, target: float | None) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("value", torch.tensor(value))

    def observe(self, kl: Tensor) -> None:
        """Adapt to the KL of a round."""
        if self.target is not None:
            self.value *= 1 + 0.1 * (kl / self.target - 1).clamp(-0.2, 0.2)


def sample_rollout(round: Round, samples: int, rewards: Sequence[Reward], unfinished: float) -> Batch:
    """A rollout with rewards, reference log-probabilities, statistics of the round and the KL coefficient `beta`."""
    models = round.models
    rollout = add_reference(round, add_rewards(round, draw_answers(round, samples), rewards, unfinished))
    rollout |= round_statistics(round, rollout)
    rows = len(rollout["tokens"])
    rollout["beta"] = models["kl"].value.expand(rows).clone()
    if round.learning:
        models["kl"].observe(rollout["told_kl"][0])
    return rollout


def passes(round: Round, loss: LossFunction, count: Count, epochs: int, parts: int) -> Iterator[Turn]:
    """`epochs` passes over the rollout in random order with `parts` updates each; a single turn on held-out rows."""
    batch = round.batch
    if not round.learning:
        yield Turn("model", batch, loss, count)
        return
    for _ in range(epochs):
        for rows in round.noise.together().permutation(len(batch["tokens"])).chunk(parts):
            rows = rows[batch["length"][rows].argsort()]  # micro-batches of similar lengths have little padding
            yield Turn("model", {name: tensor[rows] for name, tensor in batch.items()}, loss, count)


BY_TOKEN = ("tokens", "targets", "old", "reference", "advantage", "value", "target")


def trimmed(batch: Batch) -> Batch:
    """The batch without the columns that are padding in every row."""
    longest = int(batch["length"].max())
    return {name: tensor[:, :longest] if name in BY_TOKEN else tensor for name, tensor in batch.items()}


def answer_mask(batch: Batch) -> Tensor:
    """The mask of answer tokens, [N, T]."""
    return batch["targets"] != IGNORED


def count_tokens(batch: Batch, *terms: str) -> dict[str, float]:
    """The number of answer tokens for each term, and of text tokens for the pretraining loss if there is text."""
    counts = dict.fromkeys(terms, float(answer_mask(batch).sum()))
    if "mix_targets" in batch:
        counts["mix"] = float((batch["mix_targets"] != IGNORED).sum())
    return counts


def text_loss(models: Models, batch: Batch, weight: float) -> dict[str, Tensor]:
    """The next-token loss on text, ptx of InstructGPT; empty without text."""
    if "mix_tokens" not in batch:
        return {}
    logits = models["model"](batch["mix_tokens"], batch.get("mix_positions"))
    return {"mix": weight * cross_entropy(logits.flatten(0, 1), batch["mix_targets"].flatten())}


def policy_metrics(
    now_NT: Tensor, ratio_NT: Tensor, clipped_NT: Tensor, batch: Batch
) -> dict[str, tuple[Tensor, Tensor]]:
    """Metrics of the round and of this update: KL from the old policy, ratio, clip fraction, beta."""
    mask = answer_mask(batch)
    tokens = mask.sum().float()
    kl_NT = ((ratio_NT - 1) - (now_NT - batch["old"])).detach()  # a KL estimate that is never negative
    update = {
        "update_kl": ((kl_NT * mask).sum(), tokens),
        "ratio": ((ratio_NT.detach() * mask).sum(), tokens),
        "clip_fraction": ((clipped_NT & mask).sum().float(), tokens),
        "beta": (batch["beta"].sum(), torch.tensor(float(len(batch["beta"])))),
    }
    return round_metrics(batch) | update


def policy_logprobs(models: Models, batch: Batch) -> Tensor:
    """Log-probabilities of the answer tokens under the current policy."""
    return logprobs(models["model"], batch["tokens"], batch["targets"])
