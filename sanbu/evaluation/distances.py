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
SAME = 1e-3  # below the distance of two pictures that differ by one of 255 levels in one pixel; above rounding


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
    return kid_and_error(found_ND, real_ND)[0]


def kid_and_error(found_ND: Tensor, real_ND: Tensor) -> tuple[float, float]:
    """KID, and the standard error that comes from drawing only N samples: the jackknife over the samples.

    The real set is given, as it is the same for every row that is compared.
    """
    check_sizes(found_ND, real_ND)
    x, y = found_ND.double(), real_ND.double()
    n = len(x)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    xx, yy, xy_N = kernel(x, x), kernel(y, y), kernel(x, y).sum(1)
    among_N = xx.sum(1) - xx.diagonal()
    real = (yy.sum() - yy.trace()) / (n * (n - 1))
    value = among_N.sum() / (n * (n - 1)) + real - 2 * xy_N.sum() / n**2
    among_rest_N = (among_N.sum() - 2 * among_N) / ((n - 1) * (n - 2))
    without_N = among_rest_N + real - 2 * (xy_N.sum() - xy_N) / (n * (n - 1))
    error = ((n - 1) * without_N.var(correction=0)).sqrt()
    return float(value), float(error)


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
    """The fraction of samples that are as close to a training picture as the nearest 5 % of unseen pictures are."""
    near = copy_distance(train_ND, test_ND, quantile)
    return float((nearest(found_ND, train_ND) <= near).double().mean())


def copy_distance(train_ND: Tensor, test_ND: Tensor, quantile: float = 0.05) -> Tensor:
    """The distance to a training picture below which a sample is a copy: that of the nearest 5 % of unseen pictures.

    At least SAME, so that a training picture is a copy of itself even where many unseen pictures equal training ones.
    """
    return nearest(test_ND, train_ND).quantile(quantile).clamp(min=SAME)


def nearest(samples_ND: Tensor, others_MD: Tensor) -> Tensor:
    """distance_N: from each sample to the nearest of the others."""
    return torch.cdist(samples_ND.double(), others_MD.double()).amin(1)


def class_variation(found_N: np.ndarray, real_N: np.ndarray, classes: int) -> float:
    """Total variation between two class distributions: half the sum of absolute differences."""
    shares = [np.bincount(labels, minlength=classes) / len(labels) for labels in (found_N, real_N)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
