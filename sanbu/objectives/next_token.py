"""Next-token cross-entropy: -sum_t log p(x_{t+1} | x_1 .. x_t), in nats (Shannon, 1951).

A batch has tokens_BT and targets_BT, where -100 means no loss; positions_BT restart at 0 with each document that is
packed into a row; bytes_B counts the bytes of text of the targets of a row.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import IGNORED, Batch, Models


class NextToken(ObjectiveConfig):
    """Cross-entropy of the next token."""

    kind: Literal["next-token"] = "next-token"
    families: ClassVar[tuple[str, ...]] = ("tokens",)

    def build(self) -> Objective:
        return next_token()


def next_token() -> Objective:
    """Cross-entropy of the next token, all logits at once."""

    def loss(models: Models, batch: Batch) -> Loss:
        logits_BTV = models["model"](batch["tokens"], batch.get("positions"))
        return as_loss(cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten()), batch)

    return Objective(loss, count_targets)


class ChunkedNextToken(ObjectiveConfig):
    """Cross-entropy of the next token without storing all logits, for large vocabularies."""

    kind: Literal["next-token-chunked"] = "next-token-chunked"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    chunk: int = Field(1024, ge=1, description="tokens whose logits are in memory at once")

    def build(self) -> Objective:
        return next_token_chunked(self.chunk)


def next_token_chunked(chunk: int) -> Objective:
    """The same loss; logits are in memory for `chunk` tokens at a time."""

    def loss(models: Models, batch: Batch) -> Loss:
        def readout(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
            return chunked_cross_entropy(head, hidden_BTD.flatten(0, 1), batch["targets"].flatten(), chunk)

        return as_loss(models["model"](batch["tokens"], batch.get("positions"), readout=readout), batch)

    return Objective(loss, count_targets)


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """The summed negative log-likelihood in float32 over all targets that are not ignored."""
    return F.cross_entropy(logits_NV.float(), targets_N, ignore_index=IGNORED, reduction="sum")


def chunked_cross_entropy(head: nn.Module, hidden_ND: Tensor, targets_N: Tensor, chunk: int) -> Tensor:
    """`cross_entropy(head(hidden), targets)`, chunk by chunk; gradients are computed in the forward pass."""
    taught = (targets_N != IGNORED).nonzero().squeeze(1)
    hidden_ND, targets_N = hidden_ND[taught], targets_N[taught]
    learning = [parameter for parameter in head.parameters() if parameter.requires_grad]  # none where it is frozen
    return _ChunkedCrossEntropy.apply(head, chunk, hidden_ND, targets_N, *learning)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient of a sum is known in the forward pass up to a factor, so no logits are kept for backward."""

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
                for sum_so_far, gradient in zip(gradients[1:], others, strict=True):
                    sum_so_far += gradient
        context.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        hidden, *parameters = (slope * gradient for gradient in context.saved_tensors)
        return None, None, hidden, None, *parameters


def count_targets(batch: Batch) -> dict[str, float]:
    """The number of targets that are not ignored."""
    return {"next_token": float((batch["targets"] != IGNORED).sum())}


def as_loss(nats: Tensor, batch: Batch) -> Loss:
    """The sum as a Loss, with bits per byte if the batch has `bytes`."""
    if "bytes" not in batch:
        return Loss({"next_token": nats})
    return Loss({"next_token": nats}, {"bits_per_byte": (nats / math.log(2), batch["bytes"].sum())})
