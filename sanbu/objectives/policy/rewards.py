"""Rewards of an answer: the score of a reward model, a check against the known answer, or a function of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.config import Choice
from sanbu.objectives.answers import by_length
from sanbu.objectives.objective import Round
from sanbu.space import Batch

Reward = Callable[[Round, Batch], Tensor]  # round and rollout -> reward_N


class RewardConfig(Choice):
    """A reward of an answer; several rewards are summed."""

    table: ClassVar[str] = "sanbu.objectives:REWARDS"

    weight: float = Field(1.0, description="weight in the sum of rewards")

    def build(self) -> Reward:
        raise NotImplementedError


class Learned(RewardConfig):
    """The score of the reward model parents.reward."""

    kind: Literal["learned"] = "learned"

    def build(self) -> Reward:
        return learned_reward(self.weight)


def learned_reward(weight: float) -> Reward:
    """The score of the reward model at the end token of the answer."""

    def reward(round: Round, rollout: Batch) -> Tensor:
        tokens = F.pad(rollout["tokens"], (0, 1))
        length, ending = rollout["length"], rollout["ending"]
        ended = torch.where(ending >= 0, ending, tokens.gather(1, length[:, None])[:, 0])
        tokens = tokens.scatter(1, length[:, None], ended[:, None])
        last = length - (ending < 0).long()

        def score(rows: Tensor, width: int) -> Tensor:
            scores: Tensor = round.models["reward"](tokens[rows, :width], last[rows])
            return scores[:, 0].float()

        return weight * by_length(score, last + 1)

    return reward


class Checked(RewardConfig):
    """1 where the answer equals the known one, 0 elsewhere."""

    kind: Literal["checked"] = "checked"

    def build(self) -> Reward:
        return checked_reward(self.weight)


def checked_reward(weight: float) -> Reward:
    """1 where the answer equals the known one and was not cut off, 0 elsewhere."""

    def reward(round: Round, rollout: Batch) -> Tensor:
        return weight * exact_match(round, rollout)

    return reward


def text_reward(function: Callable[[list[str], list[str], list[str]], list[float]]) -> Reward:
    """The reward of a function of questions, answers and known answers, all as text."""

    def reward(round: Round, rollout: Batch) -> Tensor:
        known = [round.read(row[row >= 0]) for row in rollout["answer"]]
        values = function(questions(round, rollout), answers(round, rollout), known)
        return torch.tensor(values, dtype=torch.float32, device=rollout["tokens"].device)

    return reward


def exact_match(round: Round, rollout: Batch) -> Tensor:
    """1.0 for each row whose answer equals the known one and was not cut off, else 0.0, [N]; 0.0 if none is known."""
    known = [round.read(row[row >= 0]).strip() for row in rollout["answer"]]
    same = [
        right != "" and answer.strip() == right for answer, right in zip(answers(round, rollout), known, strict=True)
    ]
    return torch.tensor(same, device=rollout["tokens"].device).float() * (rollout["ending"] >= 0)


def questions(round: Round, rollout: Batch) -> list[str]:
    """The questions as text."""
    starts = rollout["start"].tolist()
    return [round.read(row[:start]) for row, start in zip(rollout["tokens"], starts, strict=True)]


def answers(round: Round, rollout: Batch) -> list[str]:
    """The answers as text."""
    spans = zip(rollout["tokens"], rollout["start"].tolist(), rollout["length"].tolist(), strict=True)
    return [round.read(row[start:end]) for row, start, end in spans]
