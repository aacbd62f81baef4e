"""Log-probabilities of the tokens of a prompt, computed while it is prefilled (`echo` with `logprobs`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sanbu.serve.request import Request, Score, Work

ROWS = 64  # positions whose logits are computed at once, to bound the memory


def positions(order: Work) -> Iterator[tuple[Request, int, int]]:
    """(request, first row, number of rows) of the prompt positions in a step that predict tokens not scored yet."""
    start = 0
    for request, count in order:
        if request.scores is not None:
            begin = max(request.filled, len(request.scores))  # after a preemption, a prompt is computed again
            end = min(request.filled + count, len(request.prompt) - 1)
            if begin < end:
                yield request, start + begin - request.filled, end - begin
        start += count


def score(order: Work, head: Callable[[Tensor], Any], hidden_TD: Tensor) -> None:
    """Append the log-probability of each prompt token of a step, given those before it, and the most likely tokens."""
    for request, first, count in positions(order):
        assert request.scores is not None
        for row in range(first, first + count, ROWS):
            rows = min(ROWS, first + count - row)
            known = len(request.scores) + 1
            targets = torch.tensor(request.prompt[known : known + rows], device=hidden_TD.device)
            logprobs_RV = head(hidden_TD[row : row + rows]).float().log_softmax(-1)
            request.scores += scores_of(logprobs_RV, targets, request.top)


def scores_of(logprobs_RV: Tensor, targets_R: Tensor, top: int) -> list[Score]:
    """For each row the log-probability of its target, and the `top` most likely tokens with theirs."""
    values = logprobs_RV.gather(1, targets_R[:, None])[:, 0].tolist()
    best, ids = (each.tolist() for each in logprobs_RV.topk(min(top, logprobs_RV.shape[1]), -1))
    tops = [list(zip(*pair, strict=True)) for pair in zip(ids, best, strict=True)]
    return list(zip(values, tops, strict=True))
