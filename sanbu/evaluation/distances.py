"""How far one set of samples is from another, on features [N, D] of any kind. Sets are of equal size, always.

All are exact and seedless. A distance from too few samples would say more about their number than about their law, so
it is refused.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sanbu.config import SanbuError

NEIGHBOURS = 5


class TooFew(SanbuError):
    """Not enough samples for a distance to mean anything."""


def enough(found: Tensor, real: Tensor, needed: int = 50) -> None:
    """Raise TooFew unless both sets have the same, sufficient size."""
    if len(found) != len(real):
        raise TooFew(
            f"{len(found)} samples against {len(real)}: distances depend on the number, so both must have the same"
        )
    if len(found) < needed:
        raise TooFew(f"{len(found)} samples are too few for a distance; {needed} are needed")


def frechet(found_ND: Tensor, real_ND: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^1/2), the Frechet distance of two Gaussians (Heusel and others, 2017).

    Biased upward by about 1/N; refused where there are fewer samples than features.
    """
    enough(found_ND, real_ND, max(50, found_ND.shape[1]))
    x, y = found_ND.double(), real_ND.double()
    first, second = torch.cov(x.T), torch.cov(y.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    between = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + first.trace() + second.trace() - 2 * between)


def kid(found_ND: Tensor, real_ND: Tensor) -> float:
    """Kernel distance: the unbiased squared MMD with (x.y / D + 1)^3 (Binkowski and others, 2018); may be below 0."""
    enough(found_ND, real_ND)
    x, y = found_ND.double(), real_ND.double()
    n = len(x)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def neighbourhoods(found_ND: Tensor, real_ND: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi and others, 2019), density and coverage (Naeem and others, 2020), from balls
    that reach to the k-th neighbour."""
    enough(found_ND, real_ND)
    found, real = found_ND.double(), real_ND.double()
    across = torch.cdist(real, found)
    radius_real, radius_found = (torch.cdist(x, x).kthvalue(k + 1, dim=1).values for x in (real, found))
    in_real = across <= radius_real[:, None]
    return {
        "precision": float(in_real.any(0).double().mean()),
        "recall": float((across <= radius_found[None]).any(1).double().mean()),
        "density": float(in_real.sum(0).double().mean() / k),
        "coverage": float(in_real.any(1).double().mean()),
    }


def copy_rate(found_ND: Tensor, train_ND: Tensor, test_ND: Tensor, quantile: float = 0.05) -> float:
    """The share of samples nearer to a training picture than all but 5 % of unseen pictures are."""
    near = torch.cdist(test_ND.double(), train_ND.double()).amin(1).quantile(quantile)
    return float((torch.cdist(found_ND.double(), train_ND.double()).amin(1) < near).double().mean())


def class_variation(found_N: np.ndarray, real_N: np.ndarray, classes: int) -> float:
    """Total variation between two distributions of class: half the sum of absolute differences."""
    shares = [np.bincount(labels, minlength=classes) / len(labels) for labels in (found_N, real_N)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
