"""Log-likelihood of continuations: all that zero-shot and few-shot evaluation needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sanbu.codecs.tokenizer import encode
from sanbu.objectives.answers import logprobs
from sanbu.progress import progress_rows
from sanbu.run import Run
from sanbu.space import IGNORED

TOKENS = 1 << 13  # through the model at once


def split(run: Run, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids of both, as the whole text is tokenised; spaces at the end of the context go to the continuation.

    The context begins as a document begins.
    """
    tokenizer: Any = run.codec.tokenizer  # type: ignore[attr-defined]
    kept = context.rstrip(" ")
    continuation = context[len(kept) :] + continuation
    start = [] if tokenizer.start is None else [tokenizer.start]
    before, whole = encode(tokenizer, kept), encode(tokenizer, kept + continuation)
    return start + before, whole[len(before) :]


def loglikelihoods(
    run: Run, pairs: Sequence[tuple[list[int], list[int]]], what: str = "scoring"
) -> list[tuple[float, bool]]:
    """log p(continuation | context) for pairs of ids, and whether greedy decoding gives the continuation.

    What does not fit into the model's context is cut off on the left.
    """
    model: Any = run.model
    found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    order = sorted((i for i in range(len(pairs)) if pairs[i][1]), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
    with torch.no_grad(), progress_rows(what, len(order)) as progress:
        while order:
            longest = min(model.context, len(pairs[order[0]][0]) + len(pairs[order[0]][1]) - 1)
            part, order = order[: max(1, TOKENS // longest)], order[max(1, TOKENS // longest) :]
            tokens, targets = together([pairs[i] for i in part], model.context)
            each = logprobs(model, tokens, targets).double().sum(1).tolist()
            for i, value, exact in zip(part, each, greedy(model, tokens, targets), strict=True):
                found[i] = (value, exact)
            progress(len(part))
    return found


def together(pairs: Sequence[tuple[list[int], list[int]]], context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """tokens_NT padded on the right, and targets_NT: the continuation's tokens, -100 elsewhere."""
    rows = []
    for before, after in pairs:
        whole = (before + after)[-(context + 1) :]
        asked = min(len(after), len(whole) - 1)
        rows.append((whole[:-1], [IGNORED] * (len(whole) - 1 - asked) + whole[len(whole) - asked :]))
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row, _ in rows])
    targets = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, row in rows])
    return tokens, targets


def greedy(model: Any, tokens_NT: torch.Tensor, targets_NT: torch.Tensor) -> list[bool]:
    """Whether each row's targets are the most likely tokens."""
    asked = targets_NT != IGNORED
    best = model(tokens_NT, readout=lambda head, hidden: head(hidden[asked]).argmax(-1))
    wrong = torch.zeros_like(targets_NT).masked_scatter(asked, (best != targets_NT[asked]).long())
    return (wrong.sum(1) == 0).tolist()
