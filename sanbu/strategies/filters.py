"""What is done to logits_BV before a token is drawn: small functions, applied in the order they are listed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import Config

COLD = 1e-30  # lower temperatures make logits overflow, and leave the most likely token alone
Filter = Callable[[Tensor, Any], Tensor]  # (logits_BV, seen_BV bool: tokens already there) -> logits_BV


class Sampling(Config):
    """How one token is chosen from its logits."""

    temperature: float = Field(1.0, ge=0, description="0 takes the most likely token")
    top_k: int = Field(0, ge=0, description="keep the k most likely tokens; 0 keeps all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the smallest set with this probability")
    min_p: float = Field(0.0, ge=0, le=1, description="keep tokens at least this fraction as likely as the best")
    repetition_penalty: float = Field(1.0, gt=0, description="divides the logits of tokens already there; 1 is none")


def filters(config: Sampling) -> list[Filter]:
    """The filters a config asks for; those that would do nothing are left out."""
    chosen: list[tuple[bool, Filter]] = [
        (config.repetition_penalty != 1, repetition_penalty(config.repetition_penalty)),
        (config.temperature not in (0, 1), temperature(config.temperature)),
        (config.top_k > 0, top_k(config.top_k)),
        (config.top_p < 1, top_p(config.top_p)),
        (config.min_p > 0, min_p(config.min_p)),
    ]
    return [function for wanted, function in chosen if wanted]


def temperature(value: float) -> Filter:
    """Divide by the temperature."""
    return coldest if value < COLD else lambda logits_BV, seen_BV: logits_BV / value


def coldest(logits_BV: Tensor, seen_BV: Any) -> Tensor:
    """Keep the most likely token, and those equal to it: the limit of temperature 0 from above."""
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(-1, keepdim=True), -torch.inf)


def repetition_penalty(penalty: float) -> Filter:
    """Divide positive and multiply negative logits of tokens already there (Keskar and others, 2019)."""

    def apply(logits_BV: Tensor, seen_BV: Any) -> Tensor:
        return torch.where(seen_BV, torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)

    return apply


def top_k(k: int) -> Filter:
    """Keep the k most likely tokens (Fan and others, 2018); of equals, the lowest ids."""

    def apply(logits_BV: Tensor, seen_BV: Any) -> Tensor:
        order = logits_BV.argsort(dim=-1, descending=True, stable=True)[:, :k]
        return torch.full_like(logits_BV, -torch.inf).scatter(1, order, logits_BV.gather(1, order))

    return apply


def top_p(p: float) -> Filter:
    """Keep the smallest set of most likely tokens whose probability reaches p (Holtzman and others, 2020)."""

    def apply(logits_BV: Tensor, seen_BV: Any) -> Tensor:
        probabilities, order = logits_BV.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        dropped = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(1, order, before >= p)
        return logits_BV.masked_fill(dropped, -torch.inf)

    return apply


def min_p(p: float) -> Filter:
    """Keep tokens at least p times as likely as the most likely (Nguyen and others, 2024)."""

    def apply(logits_BV: Tensor, seen_BV: Any) -> Tensor:
        probabilities = logits_BV.softmax(-1)
        return logits_BV.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)

    return apply


def draw(logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """One token a row by inverse CDF in the order of ids: the same row and uniform give the same token in any batch."""
    cumulative_BV = logits_BV.double().softmax(-1).cumsum(-1)
    token_B = (cumulative_BV <= (uniform_B * cumulative_BV[:, -1])[:, None]).sum(-1)
    return token_B.clamp(max=logits_BV.shape[1] - 1)
