"""Residual vector quantization: each codebook holds vectors, and quantizes what the ones before it left over.

r_1 = z,    code_k = argmin_v |r_k - c_kv|,    r_{k+1} = r_k - c_k,code_k,    value = sum_k c_k,code_k

z is the encoder's vector less the moving average of all vectors, brought to variance 1: else an encoder learns within
a few rounds to please the commitment by vectors that are all alike. A code is the moving average of the vectors that
chose it; one that is hardly chosen any more becomes a vector of the round (van den Oord and others, "Neural discrete
representation learning", 2017). Rows that use the first codebooks alone make every prefix a quantizer of its own
(Zeghidour and others, "SoundStream", 2021).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.layers.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig, occurrences
from sanbu.noise import Noise

TINY = 1e-10  # variance that is added to that of a vector


class Rvq(QuantizerConfig):
    """Residual vector quantization: learned codebooks, each for what the ones before left over."""

    kind: Literal["rvq"] = "rvq"
    size: int = Field(512, ge=2, description="codes per codebook")
    dimensions: int = Field(32, ge=2, description="numbers per code")
    decay: float = Field(0.98, ge=0, lt=1, description="of the moving averages that are the codes")
    dead: float = Field(0.05, ge=0, lt=1, description="codes chosen less than this share of an even use are replaced")

    @property
    def codes(self) -> int:
        return self.size

    def build(self) -> Quantizer:
        return ResidualVectors(self)


class ResidualVectors(Quantizer):
    """codebook [K, V, D]; counts [K, V] and sums [K, V, D], the averages that it is made of; middle [D] of vectors."""

    nested = True
    codebook: Tensor
    middle: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, config: Rvq) -> None:
        super().__init__(config.codebooks, config.codes, config.dimensions)
        self.decay, self.dead = config.decay, config.dead
        shape = (config.codebooks, config.codes, config.dimensions)
        self.register_buffer("codebook", 0.1 * torch.randn(shape))
        self.register_buffer("middle", torch.zeros(config.dimensions))
        self.register_buffer("counts", torch.zeros(shape[:2]))
        self.register_buffer("sums", torch.zeros(shape))

    def forward(self, vectors_BFD: Tensor, depths_B: Tensor | None = None) -> Quantized:
        """The commitment of a row is the mean over the codebooks that it uses."""
        z_BFD = residual = self.unquantized(vectors_BFD)
        total, distance_B, codes = torch.zeros_like(z_BFD), z_BFD.new_zeros(len(z_BFD)), []
        depths_B = self.depths(z_BFD, depths_B)
        for level in range(self.codebooks):
            chosen_BF = self.nearest(residual.detach(), level)
            taken = F.embedding(chosen_BF, self.codebook[level])
            used_B = (level < depths_B).float()
            residual = residual - taken
            total = total + used_B[:, None, None] * taken
            distance_B = distance_B + used_B * residual.square().mean((1, 2))
            codes.append(chosen_BF)
        values = z_BFD + (total - z_BFD).detach()
        return Quantized(values, torch.stack(codes, 1), distance_B / depths_B)

    def depths(self, vectors_BFD: Tensor, depths_B: Tensor | None) -> Tensor:
        """How many codebooks each row uses, [B]."""
        rows = len(vectors_BFD)
        return torch.full((rows,), self.codebooks, device=vectors_BFD.device) if depths_B is None else depths_B

    def vectors(self, codes_BKF: Tensor) -> Tensor:
        """Fewer codebooks than there are: the first ones."""
        codes_BKF = self.checked(codes_BKF)
        total = F.embedding(codes_BKF[:, 0], self.codebook[0])
        for level in range(1, codes_BKF.shape[1]):
            total = total + F.embedding(codes_BKF[:, level], self.codebook[level])
        return total

    def unquantized(self, vectors_BFD: Tensor) -> Tensor:
        """z: of mean 0 and variance 1 each, after the middle of all vectors is taken away."""
        return F.layer_norm(vectors_BFD.float() - self.middle, (self.dimensions,), eps=TINY)

    def nearest(self, residual: Tensor, level: int) -> Tensor:
        """The nearest code of each vector [..., D]."""
        codes_VD = self.codebook[level]
        return (codes_VD.square().sum(1) - 2 * residual @ codes_VD.T).argmin(-1)

    @torch.no_grad()
    def follow(self, vectors_BFD: Tensor, noise: Noise) -> None:
        """Once per round. At the first one all codes are unused, so all become vectors of the round."""
        known = 1 - self.decay if bool(self.counts.any()) else 1.0
        self.middle.lerp_(vectors_BFD.float().mean((0, 1)), known)
        residual = self.unquantized(vectors_BFD).flatten(0, 1)
        even = len(residual) / self.codes  # what a code would be chosen if all were chosen alike
        for level in range(self.codebooks):
            code_VD, count_V, sum_VD = self.codebook[level], self.counts[level], self.sums[level]  # views
            dead_V = count_V <= self.dead * even
            chosen_N = self.nearest(residual, level)
            now_V = occurrences(chosen_N[None, None], self.codes)[0]
            now_VD = torch.zeros_like(sum_VD).index_add_(0, chosen_N, residual)
            count_V.lerp_(now_V, 1 - self.decay)
            sum_VD.lerp_(now_VD, 1 - self.decay)
            fresh_VD = residual[noise.together().integers(len(residual), self.codes)]
            count_V.masked_fill_(dead_V, even)
            sum_VD[dead_V] = even * fresh_VD[dead_V]
            code_VD.copy_(sum_VD / count_V[:, None])
            residual = residual - F.embedding(self.nearest(residual, level), code_VD)
