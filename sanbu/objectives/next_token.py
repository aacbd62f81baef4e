"""Next-token cross-entropy: -sum_t log p(x_{t+1} | x_1 .. x_t), in nats (Shannon, 1951).

A batch has tokens_BT and targets_BT, where a target of -100 teaches nothing; positions_BT restart at 0 with each document
packed into a row; bytes_B counts the bytes of text that the row's targets stand for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.objectives.objective import Batch, Loss, Models, Objective

IGNORED = -100


def next_token() -> Objective:
    """Cross-entropy of the next token, all logits at once."""

    def loss(models: Models, batch: Batch) -> Loss:
        logits_BTV = models["model"](batch["tokens"], batch.get("positions"))
        return as_loss(cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten()), batch)

    return Objective(loss, count_targets)


def next_token_chunked(chunk: int) -> Objective:
    """The same number; logits exist for `chunk` tokens at a time."""

    def loss(models: Models, batch: Batch) -> Loss:
        def readout(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
            return chunked_cross_entropy(head, hidden_BTD.flatten(0, 1), batch["targets"].flatten(), chunk)

        return as_loss(models["model"](batch["tokens"], batch.get("positions"), readout=readout), batch)

    return Objective(loss, count_targets)


def in_context() -> Objective:
    """Cross-entropy of the taught tokens; accuracy_k is that of the one after k examples."""

    def loss(models: Models, batch: Batch) -> Loss:
        targets = batch["targets"]
        logits_BTV = models["model"](batch["tokens"])
        right = (logits_BTV.argmax(-1) == targets).float()
        taught = (targets != IGNORED).float()
        order = (taught.cumsum(1) - 1).long()
        shots = int(order.max()) + 1 if targets.numel() else 0
        metrics = {
            f"accuracy_{k}": ((right * taught * (order == k)).sum(), (taught * (order == k)).sum()) for k in range(shots)
        }
        return Loss({"next_token": cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())}, metrics)

    return Objective(loss, count_targets)


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """The summed negative log-likelihood in float32; ignored targets add nothing."""
    return F.cross_entropy(logits_NV.float(), targets_N, ignore_index=IGNORED, reduction="sum")


def chunked_cross_entropy(head: nn.Module, hidden_ND: Tensor, targets_N: Tensor, chunk: int) -> Tensor:
    """`cross_entropy(head(hidden), targets)` without all logits: each chunk gives its loss and its gradients at once."""
    taught = (targets_N != IGNORED).nonzero().squeeze(1)
    hidden_ND, targets_N = hidden_ND[taught], targets_N[taught]
    return _ChunkedCrossEntropy.apply(head, chunk, hidden_ND, targets_N, *head.parameters())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradients of a sum are known up to one factor before the backward pass, so logits need not be kept or remade."""

    @staticmethod
    def forward(
        context: Any, head: nn.Module, chunk: int, hidden_ND: Tensor, targets_N: Tensor, *parameters: Tensor
    ) -> Tensor:
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        gradients = [torch.zeros_like(tensor) for tensor in (hidden_ND, *parameters)]
        wanted = any(context.needs_input_grad)
        for start in range(0, len(targets_N), chunk):
            hidden = hidden_ND[start : start + chunk].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                nats = cross_entropy(head(hidden), targets_N[start : start + chunk])
            total += nats.detach()
            if wanted:
                first, *others = torch.autograd.grad(nats, (hidden, *parameters))
                gradients[0][start : start + chunk] = first
                torch._foreach_add_(gradients[1:], others)
        context.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        hidden, *parameters = (slope * gradient for gradient in context.saved_tensors)
        return None, None, hidden, None, *parameters


def count_targets(batch: Batch) -> dict[str, float]:
    """How many tokens teach."""
    return {"next_token": float((batch["targets"] != IGNORED).sum())}


def as_loss(nats: Tensor, batch: Batch) -> Loss:
    """The sum as a loss, with bits per byte where the batch knows its bytes."""
    if "bytes" not in batch:
        return Loss({"next_token": nats})
    return Loss({"next_token": nats}, {"bits_per_byte": (nats / math.log(2), batch["bytes"].sum())})
