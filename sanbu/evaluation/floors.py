"""Baseline rows of every table (floors): sets of samples made without a learned model of pictures.

Each function takes training pictures [N, D] in [0, 1], a number of samples n and a seed, and returns [n, D] in [0, 1].
The first is the best that a row can be, the last the worst.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Floor = Callable[[np.ndarray, int, int], np.ndarray]


def real(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Training pictures themselves: the best possible distance, and all of them copies."""
    return train[np.random.default_rng(seed).choice(len(train), count, replace=count > len(train))]


def copycat(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Training pictures with a little noise: good distances, but a high copy rate."""
    draws = np.random.default_rng(seed)
    picked = train[draws.choice(len(train), count)]
    return picked + draws.normal(0, 0.03, picked.shape) * (picked > 0)


def gaussian(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """One Gaussian with the mean and covariance of the training pictures: m + z (X - m) / sqrt(N - 1), z normal [n, N].

    The product has exactly that covariance, and needs no matrix of D x D, so pictures can have any size.
    """
    mean = train.mean(0)
    weights = np.random.default_rng(seed).normal(0, (len(train) - 1) ** -0.5, (count, len(train)))
    return mean + weights @ (train - mean)


def mixture(train: np.ndarray, count: int, seed: int, components: int = 60) -> np.ndarray:
    """A mixture of 60 diagonal Gaussians."""
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(components, covariance_type="diag", reg_covar=1e-4, random_state=seed)
    return model.fit(train[:20000]).sample(count)[0]


def kernel(train: np.ndarray, count: int, seed: int, width: float = 0.08) -> np.ndarray:
    """A kernel density of width 0.08: training pictures with noise on every pixel."""
    draws = np.random.default_rng(seed)
    picked = train[draws.choice(len(train), count)]
    return picked + draws.normal(0, width, picked.shape)


def noise(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Uniform noise, which knows nothing of the pictures: a run that is no better has learnt nothing."""
    return np.random.default_rng(seed).uniform(0, 1, (count, train.shape[1]))


FLOORS: dict[str, Floor] = {
    "real half": real,
    "copycat": copycat,
    "one Gaussian": gaussian,
    "GMM-60": mixture,
    "KDE": kernel,
    "noise": noise,
}
