"""Distances between two sets of samples of equal size, on any features [N, D].

All are computed exactly, without random numbers. With too few samples a distance depends more on their number than on
their distribution, so small sets are refused.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sanbu.config import SanbuError

NEIGHBOURS = 5


class TooFew(SanbuError):
    """Too few samples for a meaningful distance, or two sets of different size."""


def check_sizes(found: Tensor, real: Tensor, needed: int = 50) -> None:
    """Raise TooFew unless both sets have the same size of at least `needed`."""
    if len(found) != len(real):
        raise TooFew(
            f"{len(found)} samples against {len(real)}: distances depend on the number, so both must have the same"
        )
    if len(found) < needed:
        raise TooFew(f"{len(found)} samples are too few for a distance; {needed} are needed")


def frechet(found_ND: Tensor, real_ND: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^1/2), the Frechet distance of two Gaussians (Heusel and others, 2017).

    Biased upward by about 1/N. Raises TooFew if there are fewer samples than features.
    """
    check_sizes(found_ND, real_ND, max(50, found_ND.shape[1]))
    x, y = found_ND.double(), real_ND.double()
    first, second = torch.cov(x.T), torch.cov(y.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    between = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    means = (x.mean(0) - y.mean(0)).square().sum()
    return float(means + first.trace() + second.trace() - 2 * between)


def kid(found_ND: Tensor, real_ND: Tensor) -> float:
    """KID: the unbiased squared MMD with kernel (x.y / D + 1)^3 (Binkowski and others, 2018); may be negative."""
    check_sizes(found_ND, real_ND)
    x, y = found_ND.double(), real_ND.double()
    n = len(x)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    off_diagonal = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    within = off_diagonal / (n * (n - 1))
    return float(within - 2 * xy.mean())


def neighbourhoods(found_ND: Tensor, real_ND: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi and others, 2019), density and coverage (Naeem and others, 2020).

    All use balls around each sample that reach to its k-th nearest neighbour.
    """
    check_sizes(found_ND, real_ND)
    found, real = found_ND.double(), real_ND.double()
    across = torch.cdist(real, found)
    in_real = across <= radius(real, k)[:, None]
    in_found = across <= radius(found, k)[None]
    return {
        "precision": float(in_real.any(0).double().mean()),
        "recall": float(in_found.any(1).double().mean()),
        "density": float(in_real.sum(0).double().mean() / k),
        "coverage": float(in_real.any(1).double().mean()),
    }


def radius(samples_ND: Tensor, k: int) -> Tensor:
    """radius_N: the distance of each sample to its k-th nearest neighbour in the set."""
    return torch.cdist(samples_ND, samples_ND).kthvalue(k + 1, dim=1).values  # the first is the sample itself


def copy_rate(found_ND: Tensor, train_ND: Tensor, test_ND: Tensor, quantile: float = 0.05) -> float:
    """The fraction of samples that are closer to a training picture than 95 % of unseen pictures are."""
    train = train_ND.double()
    near = torch.cdist(test_ND.double(), train).amin(1).quantile(quantile)
    distance = torch.cdist(found_ND.double(), train).amin(1)
    return float((distance < near).double().mean())


def class_variation(found_N: np.ndarray, real_N: np.ndarray, classes: int) -> float:
    """Total variation between two class distributions: half the sum of absolute differences."""
    shares = [np.bincount(labels, minlength=classes) / len(labels) for labels in (found_N, real_N)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
