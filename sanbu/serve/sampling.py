"""Batched sampling: one token per request with its own parameters, equal to AutoregressiveStrategy at the same seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from sanbu.noise import uniform_at
from sanbu.serve.request import Event, Request
from sanbu.strategies.filters import Filter, Sampling, draw, filters


def choose(logits_RV: Tensor, requests: Sequence[Request]) -> list[Event]:
    """Sample the next token of each request."""
    logprobs_RV = logits_RV.log_softmax(-1)
    adjusted_RV = adjusted(logits_RV, requests)
    token_R = torch.empty(len(requests), dtype=torch.long, device=logits_RV.device)
    for rules, rows in group_by_rules(requests).items():
        index = torch.tensor(rows, device=logits_RV.device)
        token_R[index] = sample(adjusted_RV[index], rules, [requests[row] for row in rows])
    chosen = token_R.tolist()
    logprob = logprobs_RV.gather(1, token_R[:, None])[:, 0].tolist()
    most = min(max(request.top for request in requests), logits_RV.shape[1])
    best = logprobs_RV.topk(most, -1) if most else None
    tops = (
        [list(zip(*pair, strict=True)) for pair in zip(best[1].tolist(), best[0].tolist(), strict=True)] if best else []
    )
    return [
        Event(chosen[i], logprob[i], tops[i][: request.top] if request.top else ())
        for i, request in enumerate(requests)
    ]


Rules = tuple[float, int, float, float, float]


def group_by_rules(requests: Sequence[Request]) -> dict[Rules, list[int]]:
    """Rows grouped by equal sampling parameters."""
    rows: dict[Rules, list[int]] = defaultdict(list)
    for row, request in enumerate(requests):
        c = request.config
        rows[c.temperature, c.top_k, c.top_p, c.min_p, c.repetition_penalty].append(row)
    return rows


@lru_cache(256)
def filters_of(rules: Rules) -> list[Filter]:
    """The logit filters of a set of sampling parameters."""
    temperature, top_k, top_p, min_p, penalty = rules
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    return filters(sampling)


def sample(logits_RV: Tensor, rules: Rules, requests: Sequence[Request]) -> Tensor:
    """Filter the logits, then take the most likely token at temperature 0, else sample with the request's seed."""
    seen = seen_tokens(logits_RV, requests) if rules[-1] != 1 else None
    for apply in filters_of(rules):
        logits_RV = apply(logits_RV, seen)
    if rules[0] == 0:
        return logits_RV.argmax(-1)
    seeds = torch.tensor([request.seed for request in requests], device=logits_RV.device)
    counts = torch.tensor([len(request.tokens) - len(request.prompt) for request in requests], device=logits_RV.device)
    return draw(logits_RV, uniform_at(seeds, counts))


def seen_tokens(logits_RV: Tensor, requests: Sequence[Request]) -> Tensor:
    """bool_RV: tokens that occur in a request, its prompt included."""
    seen = torch.zeros(logits_RV.shape, dtype=torch.bool, device=logits_RV.device)
    for row, request in enumerate(requests):
        seen[row, request.tokens] = True
    return seen


def adjusted(logits_RV: Tensor, requests: Sequence[Request]) -> Tensor:
    """Logits with bias, penalties and grammar masks applied; the same tensor if no request uses any."""
    if not any(
        request.bias or request.presence or request.frequency or request.mask is not None for request in requests
    ):
        return logits_RV
    logits_RV = logits_RV.clone()
    for row, request in zip(logits_RV, requests, strict=True):
        if request.bias:
            row[list(request.bias)] += torch.tensor(list(request.bias.values()), device=row.device)
        if request.presence or request.frequency:
            counts = torch.bincount(torch.tensor(request.generated, dtype=torch.long), minlength=len(row)).to(row)
            row -= request.frequency * counts + request.presence * (counts > 0)
        if request.mask is not None:
            row.masked_fill_(~request.mask.to(row.device), -torch.inf)
    return logits_RV
