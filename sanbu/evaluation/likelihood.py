"""Log-likelihood of continuations, which zero-shot and few-shot evaluation is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from operator import eq
from typing import Any

import torch

from sanbu.codecs.text import padded
from sanbu.codecs.tokenizer import encode
from sanbu.objectives.answers import logprobs
from sanbu.parallel.sharing import over_ranks, sharers
from sanbu.progress import progress_rows
from sanbu.run import Run
from sanbu.space import IGNORED

TOKENS = 1 << 13  # per forward pass


def split(run: Run, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Token ids of context and continuation, from tokenizing the whole text.

    Spaces at the end of the context are moved to the continuation, and so is its end where a token spans both. The
    context begins with the start token, if the tokenizer has one.
    """
    codec: Any = run.codec
    tokenizer = codec.tokenizer
    kept = context.rstrip(" ")
    continuation = context[len(kept) :] + continuation
    start = [] if tokenizer.start is None else [tokenizer.start]
    before, whole = encode(tokenizer, kept), encode(tokenizer, kept + continuation)
    common = sum(takewhile(bool, map(eq, before, whole)))  # all of `before` unless a token spans both
    return start + whole[:common], whole[common:]


def loglikelihoods(
    run: Run, pairs: Sequence[tuple[list[int], list[int]]], what: str = "scoring"
) -> list[tuple[float, bool]]:
    """log p(continuation | context) of each pair of ids, and whether greedy decoding gives the continuation.

    Pairs longer than the model's context are truncated on the left. what: label of the progress bar.
    """
    model: Any = run.model
    found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    sizes = [len(context) + len(continuation) for context, continuation in pairs]
    scored = [i for i in range(len(pairs)) if pairs[i][1]]
    order = sorted(scored, key=lambda i: -sizes[i])  # longest first
    parts = []
    while order:
        longest = min(model.context, sizes[order[0]] - 1)
        count = max(1, TOKENS // longest)
        parts.append(order[:count])
        order = order[count:]
    with torch.no_grad(), progress_rows(what, len(scored)) as progress:

        def score(part: Sequence[int]) -> list[tuple[float, bool]]:
            tokens, targets = make_batch([pairs[i] for i in part], model.context)
            values = logprobs(model, tokens, targets).double().sum(1).tolist()
            exact = matches_greedy(model, tokens, targets)
            progress(len(part) * sharers())
            return list(zip(values, exact, strict=True))

        for part, scores in zip(parts, over_ranks(parts, score), strict=True):
            for i, pair in zip(part, scores, strict=True):
                found[i] = pair
    return found


def make_batch(pairs: Sequence[tuple[list[int], list[int]]], context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """tokens_NT, padded on the right, and targets_NT: the tokens of the continuation, IGNORED elsewhere."""
    rows = []
    for before, after in pairs:
        whole = (before + after)[-(context + 1) :]
        scored = min(len(after), len(whole) - 1)
        ignored = [IGNORED] * (len(whole) - 1 - scored)
        rows.append((whole[:-1], ignored + whole[len(whole) - scored :]))
    tokens = padded([row for row, _ in rows], 0)
    targets = padded([row for _, row in rows], IGNORED)
    return tokens, targets


def matches_greedy(model: Any, tokens_NT: torch.Tensor, targets_NT: torch.Tensor) -> list[bool]:
    """For each row: are all its targets the most likely tokens?"""
    scored_NT = targets_NT != IGNORED
    best = model(tokens_NT, readout=lambda head, hidden: head(hidden[scored_NT]).argmax(-1))
    wrong = torch.zeros_like(targets_NT).masked_scatter(scored_NT, (best != targets_NT[scored_NT]).long())
    return (wrong.sum(1) == 0).tolist()
