"""What alignment asks of a language model: the log-probability of each token of an answer.

tokens_NT with targets_NT, the next token of each, -100 where none is asked about. Sequences begin at position 0 and
are padded on the right, which a causal model does not see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanbu.space import IGNORED, Batch, Models


def logprobs(model: nn.Module, tokens_NT: Tensor, targets_NT: Tensor) -> Tensor:
    """log p(target | before) as float32 [N, T], 0 without a target; only positions with a target use the head."""
    asked = targets_NT != IGNORED

    def readout(head: nn.Module, hidden_NTD: Tensor) -> Tensor:
        logprobs_MV = head(hidden_NTD[asked]).float().log_softmax(-1)
        return logprobs_MV.gather(1, targets_NT[asked][:, None])[:, 0]

    return spread(model(tokens_NT, readout=readout), asked)


def spread(values_M: Tensor, asked_NT: Tensor) -> Tensor:
    """Values of the places asked about, back in their places; 0 elsewhere."""
    return torch.zeros(asked_NT.shape, dtype=values_M.dtype, device=values_M.device).masked_scatter(asked_NT, values_M)


def answer_logprobs(model: nn.Module, batch: Batch) -> Tensor:
    """The summed log-probability of each answer, [B, K], from tokens_BKT and targets_BKT."""
    rows, answers = batch["tokens"].shape[:2]
    each = logprobs(model, batch["tokens"].flatten(0, 1), batch["targets"].flatten(0, 1))
    return each.sum(1).view(rows, answers)


def with_reference(models: Models, batch: Batch) -> Batch:
    """The batch with reference_BK, what the frozen reference gives the answers, unless it is there already."""
    if "reference" in batch:
        return batch
    return batch | {"reference": answer_logprobs(models["reference"], batch)}


def count_term(name: str, batch: Batch) -> dict[str, float]:
    """A term whose denominator is the number of rows."""
    return {name: float(len(batch["tokens"]))}


def fraction(true_N: Tensor) -> tuple[Tensor, Tensor]:
    """How many are true, of how many: a metric."""
    return true_N.sum().float(), torch.tensor(float(true_N.numel()))
