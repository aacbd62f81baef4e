"""Next-token cross-entropy: -sum_t log p(x_{t+1} | x_1 .. x_t), in nats (Shannon, 1951).

A batch has tokens_BT and targets_BT, where a target of -100 teaches nothing; positions_BT restart at 0 with each document
packed into a row; bytes_B counts the bytes of text that the row's targets stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sanbu.objectives.objective import Batch, Loss, Models, Objective

IGNORED = -100


def next_token() -> Objective:
    """Cross-entropy of the next token, all logits at once."""

    def loss(models: Models, batch: Batch) -> Loss:
        logits_BTV = models["model"](batch["tokens"], batch.get("positions"))
        return as_loss(cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten()), batch)

    return Objective(loss, count_targets)


def next_token_chunked(chunk: int) -> Objective:
    """The same number; logits exist for `chunk` tokens at a time, in the forward and in the backward pass."""

    def loss(models: Models, batch: Batch) -> Loss:
        def readout(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
            return chunked_cross_entropy(head, hidden_BTD.flatten(0, 1), batch["targets"].flatten(), chunk)

        return as_loss(models["model"](batch["tokens"], batch.get("positions"), readout=readout), batch)

    return Objective(loss, count_targets)


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """The summed negative log-likelihood in float32; ignored targets add nothing."""
    return F.cross_entropy(logits_NV.float(), targets_N, ignore_index=IGNORED, reduction="sum")


def chunked_cross_entropy(
    head: Callable[[Tensor], Tensor], hidden_ND: Tensor, targets_N: Tensor, chunk: int
) -> Tensor:
    """`cross_entropy(head(hidden), targets)` without all logits: each chunk's are made again in the backward pass."""
    taught = (targets_N != IGNORED).nonzero().squeeze(1)
    hidden_ND, targets_N = hidden_ND[taught], targets_N[taught]

    def part(hidden: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(head(hidden), targets)

    total = hidden_ND.new_zeros((), dtype=torch.float32)
    for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True):
        total = total + checkpoint(part, hidden, targets, use_reentrant=False, preserve_rng_state=False)
    return total


def count_targets(batch: Batch) -> dict[str, float]:
    """How many tokens teach."""
    return {"next_token": float((batch["targets"] != IGNORED).sum())}


def as_loss(nats: Tensor, batch: Batch) -> Loss:
    """The sum as a loss, with bits per byte where the batch knows its bytes."""
    if "bytes" not in batch:
        return Loss({"next_token": nats})
    return Loss({"next_token": nats}, {"bits_per_byte": (nats / math.log(2), batch["bytes"].sum())})
