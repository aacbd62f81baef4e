"""Features for distances: the pixels themselves, and the last hidden layer of a small frozen classifier.

The classifier is scikit-learn's perceptron with a fixed seed, trained on the training part. It needs no download and is
the same on every machine up to rounding. Its features are standardised, because kernel distances of raw features
overflow.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

SEED, HIDDEN, MOST = 20260101, 64, 20000


def pixels(pictures: np.ndarray) -> Tensor:
    """uint8 [N, ...] as float64 [N, D] in [0, 1]."""
    return torch.from_numpy(pictures.reshape(len(pictures), -1) / 255.0)


class Classifier:
    """A frozen perceptron from pixels to classes."""

    def __init__(self, pictures: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.neural_network import MLPClassifier

        chosen = np.random.default_rng(SEED).permutation(len(pictures))[:MOST]
        x = pixels(pictures[chosen]).numpy()
        epochs = max(20, min(200, 400000 // len(x)))
        self.model = MLPClassifier((128, HIDDEN), random_state=SEED, max_iter=epochs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns when it stops at max_iter
            self.model.fit(x, labels[chosen])
        hidden = self._last_hidden(x)
        self.alive = hidden.std(0) > 0.01  # some units are always 0
        self.mean = hidden.mean(0)[self.alive]
        self.deviation = hidden.std(0)[self.alive]

    def features(self, pictures: np.ndarray) -> Tensor:
        """Standardised features [N, D] of the units that are not constant."""
        hidden = self._last_hidden(pixels(pictures).numpy())[:, self.alive]
        return torch.from_numpy((hidden - self.mean) / self.deviation)

    def labels(self, pictures: np.ndarray) -> np.ndarray:
        """The most likely class of each picture."""
        return self.model.predict(pixels(pictures).numpy())

    def _last_hidden(self, x: np.ndarray) -> np.ndarray:
        for weight, bias in zip(self.model.coefs_[:-1], self.model.intercepts_[:-1], strict=True):
            x = np.maximum(x @ weight + bias, 0)
        return x
