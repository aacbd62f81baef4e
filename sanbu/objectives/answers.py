"""Log-probabilities of answers under a language model: log p(y_t | x, y_<t).

tokens_NT are question and answer; targets_NT the next tokens, -100 outside the answer. Sequences begin at position 0
and are padded on the right, which does not affect a causal model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanbu.space import IGNORED, Batch, Models


def logprobs(model: nn.Module, tokens_NT: Tensor, targets_NT: Tensor) -> Tensor:
    """log p of each target as float32 [N, T], 0 without a target; the head runs only at positions with a target."""
    mask = targets_NT != IGNORED

    def readout(head: nn.Module, hidden_NTD: Tensor) -> Tensor:
        logprobs_MV = head(hidden_NTD[mask]).float().log_softmax(-1)
        return logprobs_MV.gather(1, targets_NT[mask][:, None])[:, 0]

    return scatter_back(model(tokens_NT, readout=readout), mask)


def scatter_back(values_M: Tensor, mask_NT: Tensor) -> Tensor:
    """M values at the M true positions of a mask, 0 elsewhere, [N, T]."""
    return torch.zeros(mask_NT.shape, dtype=values_M.dtype, device=values_M.device).masked_scatter(mask_NT, values_M)


def answer_logprobs(model: nn.Module, batch: Batch) -> Tensor:
    """The summed log-probability of each answer, [B, K], from tokens_BKT and targets_BKT."""
    rows, answers = batch["tokens"].shape[:2]
    each = logprobs(model, batch["tokens"].flatten(0, 1), batch["targets"].flatten(0, 1))
    return each.sum(1).view(rows, answers)


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
