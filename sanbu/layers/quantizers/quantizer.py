"""The contract of a quantizer: a vector becomes K codes, one per codebook, and the codes a vector near to it.

    found = quantizer(vectors_BFD, depths_B)     # values with a straight-through gradient, codes, commitment
    vectors_BFD = quantizer.vectors(codes_BKF)   # what the codes stand for; equals found.values

The gradient passes the rounding as if it were not there (Bengio and others, 2013). Shapes: B rows, F frames, D
dimensions, K codebooks, V codes per codebook.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Choice, SanbuError
from sanbu.noise import Noise


class QuantizerConfig(Choice):
    """How vectors become codes."""

    table: ClassVar[str] = "sanbu.layers:QUANTIZERS"
    codebooks: int = Field(4, ge=1, description="codes per frame")

    def build(self) -> Quantizer:
        raise NotImplementedError

    @property
    def codes(self) -> int:
        """The codes of a codebook."""
        raise NotImplementedError

    @property
    def bits(self) -> float:
        """Bits per frame: a code needs log2 of the size of its codebook."""
        return self.codebooks * math.log2(self.codes)


@dataclass(frozen=True)
class Quantized:
    """values [B, F, D], codes [B, K, F] and, by row [B], the mean squared distance of the vectors from their codes."""

    values: Tensor
    codes: Tensor
    commitment: Tensor


class Quantizer(nn.Module):
    """A quantizer of vectors of `dimensions` numbers. nested: whether the first k codebooks work without the others."""

    nested: bool = False

    def __init__(self, codebooks: int, codes: int, dimensions: int) -> None:
        super().__init__()
        self.codebooks, self.codes, self.dimensions = codebooks, codes, dimensions

    @abstractmethod
    def forward(self, vectors_BFD: Tensor, depths_B: Tensor | None = None) -> Quantized:
        """depths: how many codebooks each row uses, the first ones; None: all."""

    @abstractmethod
    def vectors(self, codes_BKF: Tensor) -> Tensor:
        """What codes stand for, [B, F, D]. Raises SanbuError for codes out of range."""

    @abstractmethod
    def unquantized(self, vectors_BFD: Tensor) -> Tensor:
        """The values that the vectors would have if there were no rounding: the ceiling."""

    def follow(self, vectors_BFD: Tensor, noise: Noise) -> None:
        """Move codebooks toward the vectors of a round, where codebooks learn so."""

    def checked(self, codes_BKF: Tensor) -> Tensor:
        """The codes, if they are codes of this quantizer. Raises SanbuError in one line."""
        least = 1 if self.nested else self.codebooks
        if codes_BKF.ndim != 3 or not least <= codes_BKF.shape[1] <= self.codebooks:
            allowed = f"1 to {self.codebooks}" if self.nested else self.codebooks
            given = list(codes_BKF.shape)
            raise SanbuError(f"codes: given the shape {given}, allowed: rows, {allowed} codebooks, frames")
        if codes_BKF.is_floating_point() or codes_BKF.dtype == torch.bool:
            raise SanbuError(f"codes: given {str(codes_BKF.dtype)[6:]} numbers, allowed: whole numbers")
        if not codes_BKF.shape[2]:
            raise SanbuError("codes: given no frames, allowed: at least one")
        low, high = int(codes_BKF.min()), int(codes_BKF.max())
        if low < 0 or high >= self.codes:
            raise SanbuError(f"codes: given {low if low < 0 else high}, allowed: 0 to {self.codes - 1}")
        return codes_BKF.long()


def use_of(counts_KV: Tensor) -> tuple[Tensor, Tensor]:
    """Of how often each code occurred: the share of codes that occurred, and the perplexity, by codebook [K] each.

    The perplexity is exp of the entropy: V if all codes are used alike, 1 if only one is used.
    """
    share_K = (counts_KV > 0).float().mean(1)
    chances = counts_KV / counts_KV.sum(1, keepdim=True).clamp(min=1)
    entropy_K = -torch.special.xlogy(chances, chances).sum(1)
    return share_K, entropy_K.exp()


def occurrences(codes_BKF: Tensor, size: int) -> Tensor:
    """How often each code occurs, float [K, V]."""
    codes_KN = codes_BKF.transpose(0, 1).flatten(1)
    counts_KV = torch.zeros(len(codes_KN), size, device=codes_KN.device)
    return counts_KV.scatter_add_(1, codes_KN, torch.ones_like(codes_KN, dtype=counts_KV.dtype))
