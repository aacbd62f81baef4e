"""Rollouts: answers sampled by the recipe's strategy, with the log-probabilities recorded while sampling, and rewards.

A rollout has N rows of T tokens: tokens_NT (question and answer), targets_NT (what was drawn, its end included; -100
elsewhere), old_NT (log-probabilities of what was drawn, as recorded), start_N, length_N, ending_N (the token that
ended the answer, -1: cut off).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.objectives.answers import logprobs
from sanbu.objectives.objective import Round
from sanbu.objectives.policy.rewards import Reward, exact
from sanbu.space import IGNORED, Batch, Models


def roll(round: Round, samples: int) -> Batch:
    """`samples` answers to each question; the answers to one question are adjacent rows."""
    batch = {name: tensor.repeat_interleave(samples, 0) for name, tensor in round.batch.items()}
    rows = len(batch["tokens"])
    drawn = round.draw({"tokens": batch["tokens"], "length": batch["length"]}, round.noise.integers(1 << 62, rows))
    length, start, ending = drawn.committed.sum(1), batch["length"], drawn.record["ending"]
    longest = int(length.max())
    place = torch.arange(longest, device=length.device)
    tokens = drawn.sample[:, :longest].clone()
    after = F.pad(drawn.sample[:, :longest], (0, 1))[:, 1:]
    recorded = F.pad(drawn.record["logprobs"][:, :longest], (0, 1))[:, 1:]
    answer = (place >= start[:, None] - 1) & (place < length[:, None] - 1)
    end = (place == length[:, None] - 1) & (ending >= 0)[:, None]
    targets = torch.where(answer, after, IGNORED).where(~end, ending[:, None])
    old = torch.where(answer, recorded, 0.0).where(~end, drawn.record["end_logprob"][:, None])
    seen = {"tokens": tokens * (place < length[:, None]), "targets": targets, "old": old}
    return batch | seen | {"start": start, "length": length, "ending": ending}


def rewarded(round: Round, rollout: Batch, rewards: Sequence[Reward], unfinished: float) -> Batch:
    """reward_N, the sum of all plus `unfinished` for cut-off answers; each alone as part_0_N, part_1_N, ..."""
    parts = {f"part_{number}": reward(round, rollout) for number, reward in enumerate(rewards)}
    cut = torch.where(rollout["ending"] < 0, unfinished, 0.0)
    return rollout | parts | {"reward": sum(parts.values(), cut)}


def referenced(models: Models, rollout: Batch) -> Batch:
    """reference_NT: what the frozen reference gives each drawn token."""
    return rollout | {"reference": logprobs(models["reference"], rollout["tokens"], rollout["targets"])}


def round_figures(round: Round, rollout: Batch) -> Batch:
    """Figures of the whole round, the same in every row, so that any part of it reports them."""
    taught = rollout["targets"] != IGNORED
    tokens = taught.sum().clamp(min=1)
    figures = {
        "reward": rollout["reward"].mean(),
        "kl": ((rollout["old"] - rollout["reference"]) * taught).sum(1).mean(),
        "entropy": -(rollout["old"] * taught).sum() / tokens,
        "end_rate": (rollout["ending"] >= 0).float().mean(),
        "answer_length": taught.sum(1).float().mean(),
    }
    if bool((rollout["answer"] >= 0).any()):
        figures["exact"] = exact(round, rollout).mean()
        figures["wrong"] = 1 - figures["exact"]
    parts = {name: rollout[name].mean() for name in rollout if name.startswith("part_")}
    rows = len(rollout["tokens"])
    every = figures | parts
    return {f"told_{name}": value.float().expand(rows).clone() for name, value in every.items()}


def figures(batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """What `round_figures` put there, as metrics."""
    rows = torch.tensor(float(len(batch["tokens"])))
    return {
        name.removeprefix("told_"): (value.sum(), rows) for name, value in batch.items() if name.startswith("told_")
    }
