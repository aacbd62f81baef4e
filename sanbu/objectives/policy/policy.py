"""Policy optimisation on the model's own answers: what PPO, GRPO and RLOO have in common.

PPO    -min(r A, clip(r, 1 - e, 1 + e) A), r = pi / pi_old          (Schulman and others, 2017; Ouyang and others, 2022)
GAE    A_t = sum_k (g l)^k d_(t+k), d_t = R_t + g V_(t+1) - V_t     (Schulman and others, 2016)
GRPO   A = (R - mean of the group) / deviation of the group         (Shao and others, 2024)
RLOO   A = R - mean of the others in the group                      (Ahmadian and others, 2024)

The KL from the reference is part of PPO's reward. For the group methods it is a term, (log pi - log ref)^2 / 2.
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
from sanbu.objectives.policy.rollout import figures, referenced, rewarded, roll, round_figures
from sanbu.space import IGNORED, Batch, Models


class PolicyConfig(ObjectiveConfig):
    """What policy objectives have in common; they need parents.reference, and parents.reward for a learned reward."""

    families: ClassVar[tuple[str, ...]] = ("tokens",)
    rewards: tuple[RewardConfig, ...] = Field((Checked(),), min_length=1, description="rewards of an answer, summed")
    samples: int = Field(1, ge=1, description="answers per question")
    epochs: int = Field(1, ge=1, description="passes over the answers of a round")
    parts: int = Field(1, ge=1, description="updates per pass")
    clip: float = Field(0.2, gt=0, description="PPO clip range: the ratio counts only within 1 +- clip")
    kl: float = Field(0.05, ge=0, description="KL coefficient")
    unfinished: float = Field(-1.0, description="reward added to an answer without end token")

    def needs(self) -> tuple[str, ...]:
        return ("reference", *("reward" for reward in self.rewards if isinstance(reward, Learned)))


def advantages(rewards_NT: Tensor, values_NT: Tensor, there_NT: Tensor, discount: float, trace: float) -> Tensor:
    """GAE of each token that is there, [N, T]; what is not there counts neither as value nor as reward."""
    there = there_NT.to(rewards_NT.dtype)
    rewards, values = rewards_NT.where(there_NT, 0.0), values_NT.where(there_NT, 0.0)
    result, ahead = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    after = torch.zeros_like(ahead)
    for t in reversed(range(rewards.shape[1])):
        difference = rewards[:, t] + discount * after - values[:, t]
        ahead = torch.where(there_NT[:, t], difference + discount * trace * ahead, ahead)
        after = torch.where(there_NT[:, t], values[:, t], after)
        result[:, t] = ahead * there[:, t]
    return result


def whitened(values_NT: Tensor, there_NT: Tensor, shift: bool = True) -> Tensor:
    """Values of mean 0 (unless the mean is kept) and deviation 1 over all that is there."""
    kept = values_NT[there_NT]
    mean, deviation = kept.mean(), kept.std(correction=0) + 1e-8
    return torch.where(there_NT, (values_NT - mean) / deviation + (0.0 if shift else mean), 0.0)


def grouped(rewards_N: Tensor, samples: int) -> Tensor:
    """GRPO's advantages; a group of equal rewards teaches nothing."""
    groups = rewards_N.view(-1, samples)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, correction=0, keepdim=True) + 1e-4)).flatten()


def left_out(rewards_N: Tensor, samples: int) -> Tensor:
    """RLOO's advantages."""
    groups = rewards_N.view(-1, samples)
    return ((groups - groups.mean(1, keepdim=True)) * (samples / max(samples - 1, 1))).flatten()


def clipped(now_NT: Tensor, old_NT: Tensor, advantage_NT: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's loss of each token, the ratio, and where the clip holds it."""
    ratio = (now_NT - old_NT).exp()
    free, held = ratio * advantage_NT, ratio.clamp(1 - clip, 1 + clip) * advantage_NT
    return -torch.minimum(free, held), ratio, held < free


def clipped_value(now_NT: Tensor, old_NT: Tensor, target_NT: Tensor, clip: float) -> Tensor:
    """Half the squared error, of the value or of the value held near the old one, whichever is worse."""
    held = old_NT + (now_NT - old_NT).clamp(-clip, clip)
    return torch.maximum((now_NT - target_NT).square(), (held - target_NT).square()) / 2


class Coefficient(nn.Module):
    """The KL coefficient; with a target it changes by at most 2% per round (Ziegler and others, 2019)."""

    value: Tensor

    def __init__(self, value: float, target: float | None) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("value", torch.tensor(value))

    def observe(self, kl: Tensor) -> None:
        """Move toward the target, knowing the KL of a round."""
        if self.target is not None:
            self.value *= 1 + 0.1 * (kl / self.target - 1).clamp(-0.2, 0.2)


def answered(round: Round, samples: int, rewards: Sequence[Reward], unfinished: float) -> Batch:
    """A round's answers with rewards and reference, the figures of the round, and the weight of the KL."""
    models = round.models
    rollout = referenced(models, rewarded(round, roll(round, samples), rewards, unfinished))
    rollout |= round_figures(round, rollout)
    rows = len(rollout["tokens"])
    rollout["beta"] = models["kl"].value.expand(rows).clone()
    if round.learning:
        models["kl"].observe(rollout["told_kl"][0])
    return rollout


def passes(round: Round, loss: LossFunction, count: Count, epochs: int, parts: int) -> Iterator[Turn]:
    """`epochs` passes over the round in random order, each in `parts` updates; one turn for held-out answers."""
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
    """The batch without the columns in which every row is padding."""
    longest = int(batch["length"].max())
    return {name: tensor[:, :longest] if name in BY_TOKEN else tensor for name, tensor in batch.items()}


def taught(batch: Batch) -> Tensor:
    """The places of drawn tokens."""
    return batch["targets"] != IGNORED


def count_tokens(batch: Batch, *terms: str) -> dict[str, float]:
    """Drawn tokens, and tokens of text where some is mixed in."""
    counts = dict.fromkeys(terms, float(taught(batch).sum()))
    return counts | ({"mix": float((batch["mix_targets"] != IGNORED).sum())} if "mix_targets" in batch else {})


def mixed(models: Models, batch: Batch, weight: float) -> dict[str, Tensor]:
    """The next-token loss on text beside the answers: InstructGPT's ptx."""
    if "mix_tokens" not in batch:
        return {}
    logits = models["model"](batch["mix_tokens"], batch.get("mix_positions"))
    return {"mix": weight * cross_entropy(logits.flatten(0, 1), batch["mix_targets"].flatten())}


def health(now_NT: Tensor, ratio_NT: Tensor, held_NT: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Figures of the round, and of this update: how far it has moved and how often the clip holds."""
    there = taught(batch)
    tokens = there.sum().float()
    moved = ((ratio_NT - 1) - (now_NT - batch["old"])).detach()  # an estimate of the KL that is never negative
    update = {
        "update_kl": ((moved * there).sum(), tokens),
        "ratio": ((ratio_NT.detach() * there).sum(), tokens),
        "clip_fraction": ((held_NT & there).sum().float(), tokens),
        "beta": (batch["beta"].sum(), torch.tensor(float(len(batch["beta"])))),
    }
    return figures(batch) | update


def policy_logprobs(models: Models, batch: Batch) -> Tensor:
    """What the policy now gives the drawn tokens."""
    return logprobs(models["model"], batch["tokens"], batch["targets"])
