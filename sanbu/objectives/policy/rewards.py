"""Rewards of an answer: the score of a reward model, a check against the known answer, or a function of text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.config import Choice, SanbuError
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

        return weight * by_length(score, last + 1, over=round.over)

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


class Function(RewardConfig):
    """Any Python function of texts: score(questions, answers, known answers) -> a number for each answer."""

    kind: Literal["function"] = "function"
    target: str = Field(description="where the function is defined, module:name")

    def build(self) -> Reward:
        return text_reward(function_at(self.target), self.weight)


Scores = Callable[[list[str], list[str], list[str]], Sequence[float]]


def function_at(place: str) -> Scores:
    """Import a function (module:name). Raises SanbuError if that fails."""
    file, _, name = place.partition(":")
    try:
        found = getattr(sys.modules.get(file) or import_module(file), name)
    except (ImportError, AttributeError, ValueError):
        raise SanbuError(f"rewards.target: given {place!r}, which cannot be imported; write module:function") from None
    if not callable(found):
        raise SanbuError(f"rewards.target: {place} is {type(found).__name__}, but a function is needed")
    return cast(Scores, found)


def text_reward(function: Scores, weight: float = 1.0) -> Reward:
    """The reward of a function of questions, answers and known answers, all as text."""

    def reward(round: Round, rollout: Batch) -> Tensor:
        known = [round.read(row[row >= 0]) for row in rollout["answer"]]
        values = function(questions(round, rollout), answers(round, rollout), known)
        if len(values) != len(known):
            raise SanbuError(f"rewards: the function gave {len(values)} numbers for {len(known)} answers")
        return weight * torch.tensor(list(values), dtype=torch.float32, device=rollout["tokens"].device)

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
