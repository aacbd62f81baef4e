"""Rollouts: answers sampled by the recipe's strategy, with the log-probabilities recorded while sampling, and rewards.

A rollout has N rows of T tokens: tokens_NT (question and answer), targets_NT (the sampled tokens, end token included;
-100 elsewhere), old_NT (their recorded log-probabilities), start_N (of the answer), length_N, ending_N (the token that
ended the answer; -1 if it was cut off).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.objectives.answers import by_length, logprobs
from sanbu.objectives.objective import Round
from sanbu.objectives.policy.rewards import Reward, exact_match
from sanbu.space import IGNORED, Batch


def draw_answers(round: Round, samples: int) -> Batch:
    """A rollout with `samples` answers per question, in adjacent rows."""
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


def add_rewards(round: Round, rollout: Batch, rewards: Sequence[Reward], unfinished: float) -> Batch:
    """The rollout with reward_N, the sum of all rewards part_0, part_1, ... plus `unfinished` for cut-off answers."""
    parts = {f"part_{number}": reward(round, rollout) for number, reward in enumerate(rewards)}
    cut = torch.where(rollout["ending"] < 0, unfinished, 0.0)
    return rollout | parts | {"reward": sum(parts.values(), cut)}


def add_reference(round: Round, rollout: Batch) -> Batch:
    """The rollout with reference_NT, the log-probabilities under the frozen reference."""
    tokens, targets, model = rollout["tokens"], rollout["targets"], round.models["reference"]

    def each(rows: Tensor, width: int) -> Tensor:
        return logprobs(model, tokens[rows, :width], targets[rows, :width])

    return rollout | {"reference": by_length(each, rollout["length"], over=round.over)}


def round_statistics(round: Round, rollout: Batch) -> Batch:
    """Statistics of the round, repeated in every row, so that every part of the batch reports them."""
    mask = rollout["targets"] != IGNORED
    tokens = mask.sum().clamp(min=1)
    statistics = {
        "reward": rollout["reward"].mean(),
        "kl": ((rollout["old"] - rollout["reference"]) * mask).sum(1).mean(),
        "entropy": -(rollout["old"] * mask).sum() / tokens,
        "end_rate": (rollout["ending"] >= 0).float().mean(),
        "answer_length": mask.sum(1).float().mean(),
    }
    if bool((rollout["answer"] >= 0).any()):
        statistics["exact"] = exact_match(round, rollout).mean()
        statistics["wrong"] = 1 - statistics["exact"]
    parts = {name: rollout[name].mean() for name in rollout if name.startswith("part_")}
    rows = len(rollout["tokens"])
    statistics |= parts
    return {f"told_{name}": value.float().expand(rows).clone() for name, value in statistics.items()}


def round_metrics(batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """The statistics of `round_statistics` as metrics."""
    rows = torch.tensor(float(len(batch["tokens"])))
    statistics = {name: value for name, value in batch.items() if name.startswith("told_")}
    return {name.removeprefix("told_"): (value.sum(), rows) for name, value in statistics.items()}
