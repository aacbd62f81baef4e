"""Texts under the outputs of connectionist temporal classification (Graves and others, 2006)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BLANK = 0


def log_likelihoods(logprobs_BTV: Tensor, steps_B: Tensor, texts_UL: Tensor) -> Tensor:
    """log p(text | sound) [B, U] of texts of letters above 0, with zeros at their end.

    -inf where a sound is too short for a text, which needs a step per letter and one between two equal ones.
    """
    letters_U = (texts_UL > 0).sum(1)
    equal_UL = (texts_UL[:, 1:] == texts_UL[:, :-1]) & (texts_UL[:, 1:] > 0)
    fits_BU = steps_B[:, None] >= letters_U + equal_UL.sum(1)
    logprobs_TBV, B = logprobs_BTV.transpose(0, 1), len(steps_B)
    costs = [
        F.ctc_loss(
            logprobs_TBV, text.expand(B, -1), steps_B, letters.expand(B), BLANK, reduction="none", zero_infinity=True
        )
        for text, letters in zip(texts_UL, letters_U, strict=True)
    ]
    return torch.where(fits_BU, -torch.stack(costs, 1), -torch.inf)
