"""Log-probabilities of answers under a language model: log p(y_t | x, y_<t).

tokens_NT are question and answer; targets_NT the next tokens, -100 outside the answer. Sequences begin at position 0
and are padded on the right, which does not affect a causal model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.objectives.objective import Over, over_all
from sanbu.space import IGNORED, Batch, Models


def logprobs(model: nn.Module, tokens_NT: Tensor, targets_NT: Tensor) -> Tensor:
    """log p of each target as float32 [N, T], 0 without a target; the head runs only at positions with a target."""
    mask = targets_NT != IGNORED

    def readout(head: nn.Module, hidden_NTD: Tensor) -> Tensor:
        logprobs_MV = head(hidden_NTD[mask]).float().log_softmax(-1)
        return logprobs_MV.gather(1, targets_NT[mask][:, None])[:, 0]

    return scatter_back(model(tokens_NT, readout=readout), mask)


def by_length(
    function: Callable[[Tensor, int], Tensor], length_N: Tensor, size: int = 32, over: Over = over_all
) -> Tensor:
    """function(rows, width) of all rows, in pieces of about `size` rows of similar length, to compute less padding.

    The function gives [N] or [N, width] for these rows, of which no more than `width` columns count. The number of
    pieces depends on N alone, so it is the same in all processes. over: `Round.over`, if all processes have all rows.
    """
    order, total = length_N.argsort(), int(length_N.max())

    def piece(rows: Tensor) -> Batch:
        width = int(length_N[rows].max())
        made = function(rows, width)
        return {"made": F.pad(made, (0, total - width)) if made.dim() == 2 else made}

    return over(piece, order.tensor_split(max(1, len(order) // size)))["made"][order.argsort()]


def scatter_back(values_M: Tensor, mask_NT: Tensor) -> Tensor:
    """M values at the M true positions of a mask, 0 elsewhere, [N, T]."""
    return torch.zeros(mask_NT.shape, dtype=values_M.dtype, device=values_M.device).masked_scatter(mask_NT, values_M)


def answer_logprobs(model: nn.Module, batch: Batch) -> Tensor:
    """The summed log-probability of each answer, [B, K], from tokens_BKT and targets_BKT."""
    tokens_NT, targets_NT = (batch[name].flatten(0, 1) for name in ("tokens", "targets"))
    place_T = torch.arange(1, tokens_NT.shape[1] + 1, device=tokens_NT.device)
    length_N = ((targets_NT != IGNORED) * place_T).amax(1).clamp(min=1)  # what comes after the last target is padding

    def total(rows: Tensor, width: int) -> Tensor:
        return logprobs(model, tokens_NT[rows, :width], targets_NT[rows, :width]).sum(1)

    return by_length(total, length_N, 16).view(batch["tokens"].shape[:2])


def with_reference(models: Models, batch: Batch) -> Batch:
    """The batch with reference_BK, the log-probability of each answer under the reference, computed if missing."""
    if "reference" in batch:
        return batch
    return batch | {"reference": answer_logprobs(models["reference"], batch)}


def count_term(name: str, batch: Batch) -> dict[str, float]:
    """The denominator of a term that is a mean over rows."""
    return {name: float(len(batch["tokens"]))}


def fraction(true_N: Tensor) -> tuple[Tensor, Tensor]:
    """The fraction of true values, as numerator and denominator."""
    return true_N.sum().float(), torch.tensor(float(true_N.numel()))
