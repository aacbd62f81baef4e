"""Answers of one's own: drawn by the strategy that also serves, with log-probabilities recorded while drawing, and then rewarded.

A rollout has N rows of T tokens: tokens_NT (question and answer), targets_NT (what was drawn, its end included; -100 elsewhere), old_NT
(log-probabilities of what was drawn, as recorded), start_N, length_N, ending_N (the token that ended the answer, -1: cut off).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.noise import Noise
from sanbu.objectives.answers import logprobs
from sanbu.objectives.next_token import IGNORED
from sanbu.objectives.objective import Batch, Models

Reward = Callable[[Models, Batch], Tensor]  # a rollout -> a number a row


def roll(models: Models, batch: Batch, noise: Noise, samples: int) -> Batch:
    """So many answers to each question; the answers to one question stand together."""
    batch = {name: tensor.repeat_interleave(samples, 0) for name, tensor in batch.items()}
    rows = len(batch["tokens"])
    drawn = models["draw"]({"tokens": batch["tokens"], "length": batch["length"]}, noise.integers(1 << 62, rows))
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


def rewarded(models: Models, rollout: Batch, rewards: Sequence[Reward], unfinished: float) -> Batch:
    """reward_N, the sum of all, and `unfinished` more where an answer was cut off; each by itself as part_0_N, part_1_N, ..."""
    parts = {f"part_{number}": reward(models, rollout) for number, reward in enumerate(rewards)}
    cut = torch.where(rollout["ending"] < 0, unfinished, 0.0)
    return rollout | parts | {"reward": sum(parts.values(), cut)}


def referenced(models: Models, rollout: Batch) -> Batch:
    """reference_NT: what the frozen reference gives each drawn token."""
    return rollout | {"reference": logprobs(models["reference"], rollout["tokens"], rollout["targets"])}


def learned(weight: float) -> Reward:
    """The score of a reward model, at the token that ends the answer."""

    def reward(models: Models, rollout: Batch) -> Tensor:
        tokens = F.pad(rollout["tokens"], (0, 1))
        length, ending = rollout["length"], rollout["ending"]
        ended = torch.where(ending >= 0, ending, tokens.gather(1, length[:, None])[:, 0])
        tokens = tokens.scatter(1, length[:, None], ended[:, None])
        return weight * models["reward"](tokens, length - (ending < 0).long())[:, 0].float()

    return reward


def checked(weight: float) -> Reward:
    """1 where the answer is exactly what is known to be right, and came to its end."""

    def reward(models: Models, rollout: Batch) -> Tensor:
        return weight * exact(models, rollout)

    return reward


def of_text(function: Callable[[list[str], list[str], list[str]], list[float]]) -> Reward:
    """Any function of questions, answers and what is known to be right, all as text."""

    def reward(models: Models, rollout: Batch) -> Tensor:
        known = [models["read"](row[row >= 0]) for row in rollout["answer"]]
        values = function(questions(models, rollout), answers(models, rollout), known)
        return torch.tensor(values, dtype=torch.float32, device=rollout["tokens"].device)

    return reward


def exact(models: Models, rollout: Batch) -> Tensor:
    """1.0 for each row whose answer is what is known to be right."""
    known = [models["read"](row[row >= 0]).strip() for row in rollout["answer"]]
    same = [said.strip() == right for said, right in zip(answers(models, rollout), known, strict=True)]
    return torch.tensor(same, device=rollout["tokens"].device).float() * (rollout["ending"] >= 0)


def questions(models: Models, rollout: Batch) -> list[str]:
    """What was asked, as text."""
    return [models["read"](row[:start]) for row, start in zip(rollout["tokens"], rollout["start"].tolist(), strict=True)]


def answers(models: Models, rollout: Batch) -> list[str]:
    """What was answered, as text."""
    spans = zip(rollout["tokens"], rollout["start"].tolist(), rollout["length"].tolist(), strict=True)
    return [models["read"](row[start:end]) for row, start, end in spans]


def told(rollout: Batch, models: Models) -> Batch:
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
        figures["exact"] = exact(models, rollout).mean()
        figures["wrong"] = 1 - figures["exact"]
    parts = {name: rollout[name].mean() for name in rollout if name.startswith("part_")}
    rows = len(rollout["tokens"])
    return {f"told_{name}": value.float().expand(rows).clone() for name, value in (figures | parts).items()}


def figures(batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """What `told` put there, as metrics."""
    rows = torch.tensor(float(len(batch["tokens"])))
    return {name.removeprefix("told_"): (value.sum(), rows) for name, value in batch.items() if name.startswith("told_")}
