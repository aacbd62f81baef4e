"""Quality, diversity and copying of pictures, with a fixed number of samples and the same floors in every table."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sanbu.config import SanbuError, change
from sanbu.data.data import DataConfig
from sanbu.evaluation.distances import class_variation, copy_rate, frechet, kid, neighbourhoods
from sanbu.evaluation.features import Classifier, pixels
from sanbu.evaluation.floors import FLOORS

MOST = 2000  # pictures per distance
NEEDED = 200  # with fewer pictures, a distance depends more on their number than on their distribution


@dataclass(frozen=True)
class Row:
    """One row of the table. Distances are on pixels in [0, 1], or on features where the name says so. None: unknown.

    kid: unbiased, 0 is best. precision, recall, density, coverage: 5 neighbours. copy_rate: fraction of samples that
    are closer to a training picture than 95 % of unseen pictures are. nfe: evaluations of the model per picture.
    ms_per_image: one thread, batches of 512; ms_alone: batch of 1. memory_mb: peak memory of training. spread: standard
    deviations over seeds.
    """

    name: str
    strategy: str
    kid: float
    frechet: float | None
    precision: float
    recall: float
    density: float
    coverage: float
    copy_rate: float
    kid_features: float | None = None
    frechet_features: float | None = None
    class_variation: float | None = None
    bits_per_dimension: float | None = None
    nfe: int = 0
    ms_per_image: float | None = None
    ms_alone: float | None = None
    training_cpu_seconds: float = 0.0
    memory_mb: float | None = None
    parameters: int = 0
    seeds: int = 1
    spread: dict[str, float] = field(default_factory=dict)

    @property
    def floor(self) -> bool:
        """True for baseline rows, made without a learned model."""
        return self.strategy == "floor"


class Judge:
    """Scores samples against the test pictures of a data config. Raises SanbuError if there are too few pictures."""

    def __init__(self, config: DataConfig) -> None:
        labelled: Any = change(config, {"classes": "auto"}).resolve()  # labels even if the runs are unconditional
        data = labelled.build()
        self.config, self.codec, self.classes = config, data.codec, data.space.classes
        parts = {name: data.take(data.places[name][: 10 * MOST]) for name in ("train", "test")}
        self.train = np.stack([self.codec.read(row) for row in parts["train"]["levels"]])
        self.test = np.stack([self.codec.read(row) for row in parts["test"]["levels"]])
        self.labels = {name: part["label"].numpy() for name, part in parts.items()}
        self.count = min(MOST, len(self.test), len(self.train))
        if self.count < NEEDED:
            raise SanbuError(
                f"{labelled.path}: {len(self.train)} training and {len(self.test)} test pictures, but {NEEDED} of each"
                " are needed for distances; set data.test higher or add pictures"
            )

    @cached_property
    def classifier(self) -> Classifier | None:
        """The classifier whose features are used; None for pictures without labels."""
        return Classifier(self.train, self.labels["train"]) if self.classes > 1 else None

    def score(self, samples: np.ndarray) -> dict[str, Any]:
        """All distances of uint8 samples [N, ...] to the test pictures; N must be `self.count`."""
        real, found = pixels(self.test[: self.count]), pixels(samples)
        scores = {"kid": kid(found, real), "frechet": frechet_or_none(found, real), **neighbourhoods(found, real)}
        scores["copy_rate"] = copy_rate(found, pixels(self.train), real)
        if self.classifier is not None:
            real = self.classifier.features(self.test[: self.count])
            found = self.classifier.features(samples)
            scores |= {"kid_features": kid(found, real), "frechet_features": frechet(found, real)}
            predicted, labels = self.classifier.labels(samples), self.labels["test"][: self.count]
            scores["class_variation"] = class_variation(predicted, labels, self.classes)
        return scores

    def floors(self, seeds: int = 3) -> list[Row]:
        """The baseline rows, averaged over seeds."""
        flat = self.train.reshape(len(self.train), -1) / 255
        rows = []
        for name, floor in FLOORS.items():
            scores = [self.score(self._as_pictures(floor(flat, self.count, seed))) for seed in range(seeds)]
            rows.append(mean_row([Row(name, "floor", **score) for score in scores]))
        return rows

    def _as_pictures(self, flat: np.ndarray) -> np.ndarray:
        """Real numbers [N, D] rounded to pictures with the levels of this space."""
        shape = self.config.space().shape
        unit = torch.from_numpy(flat).clamp(0, 1).view(-1, *shape) * 2 - 1
        return np.stack([self.codec.read(row) for row in unit])


def frechet_or_none(found: torch.Tensor, real: torch.Tensor) -> float | None:
    """The Frechet distance; None with fewer samples than dimensions, where its covariances are singular."""
    return frechet(found, real) if len(found) >= found.shape[1] else None


def mean_row(rows: list[Row]) -> Row:
    """The mean over seeds of rows of one name, with the standard deviation of each figure."""
    first, spread, values = asdict(rows[0]), {}, {}
    for name, value in first.items():
        found = [getattr(row, name) for row in rows]
        if isinstance(value, float):
            values[name] = sum(found) / len(found)
            if len(found) > 1:
                spread[name] = statistics.stdev(found)
    return Row(**{**first, **values, "seeds": len(rows), "spread": spread})
