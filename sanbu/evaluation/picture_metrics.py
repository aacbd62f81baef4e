"""Quality, diversity and copying of pictures, always for the same number of samples and against the same floors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sanbu.config import SanbuError
from sanbu.data.data import DataConfig
from sanbu.evaluation.distances import class_variation, copy_rate, frechet, kid, neighbourhoods
from sanbu.evaluation.features import Classifier, pixels
from sanbu.evaluation.floors import FLOORS

MOST = 2000  # pictures a distance looks at
NEEDED = 200  # below, the distances say more about the number than about the pictures


@dataclass(frozen=True)
class Row:
    """One line of the table. Distances are on pixels in [0, 1] unless they say features; None: does not apply.

    kid: unbiased, near 0 is best. precision, recall, density, coverage: 5 neighbours. copy_rate: share of samples
    nearer to a training picture than 95 % of unseen ones are. ms_per_image: one thread, batches of 512; ms_alone:
    batch 1. memory_mb: at most held while training. spread: standard deviations over seeds.
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
        """Is it one of the rows that learnt nothing of pictures?"""
        return self.strategy == "floor"


class Judge:
    """The pictures of one data config, split, with classifier features. Raises SanbuError when there are too few."""

    def __init__(self, config: DataConfig) -> None:
        labelled: Any = config.model_copy(
            update={"classes": "auto"}
        ).resolve()  # also where the runs were told no labels
        data = labelled.build()
        self.config, self.codec, self.classes = config, data.codec, data.space.classes
        parts = {name: data.take(data.places[name][: 10 * MOST]) for name in ("train", "test")}
        self.train, self.test = (np.stack([self.codec.read(row) for row in parts[name]["levels"]]) for name in parts)
        self.labels = {name: part["label"].numpy() for name, part in parts.items()}
        self.count = min(MOST, len(self.test), len(self.train))
        if self.count < NEEDED:
            raise SanbuError(
                f"{labelled.path}: {len(self.train)} training and {len(self.test)} test pictures; {NEEDED} of each are"
                " needed for distances; set data.test higher or add pictures"
            )

    @cached_property
    def classifier(self) -> Classifier | None:
        """Frozen features, where there are labels to make them from."""
        return Classifier(self.train, self.labels["train"]) if self.classes > 1 else None

    def score(self, samples: np.ndarray) -> dict[str, Any]:
        """Every distance of uint8 samples [N, ...]; N is the judge's count."""
        real, found = pixels(self.test[: self.count]), pixels(samples)
        scores = {"kid": kid(found, real), "frechet": frechet_or_none(found, real), **neighbourhoods(found, real)}
        scores["copy_rate"] = copy_rate(found, pixels(self.train), real)
        if self.classifier is not None:
            real, found = self.classifier.features(self.test[: self.count]), self.classifier.features(samples)
            scores |= {"kid_features": kid(found, real), "frechet_features": frechet(found, real)}
            share = class_variation(self.classifier.labels(samples), self.labels["test"][: self.count], self.classes)
            scores["class_variation"] = share
        return scores

    def floors(self, seeds: int = 3) -> list[Row]:
        """The rows every table needs."""
        flat = self.train.reshape(len(self.train), -1) / 255
        rows = []
        for name, floor in FLOORS.items():
            scores = [self.score(self._drawn(floor(flat, self.count, seed))) for seed in range(seeds)]
            rows.append(averaged([Row(name, "floor", **score) for score in scores]))
        return rows

    def _drawn(self, flat: np.ndarray) -> np.ndarray:
        """Real numbers as pictures of this space's levels."""
        unit = torch.from_numpy(flat).clamp(0, 1).view(-1, *self.config.space().shape) * 2 - 1
        return np.stack([self.codec.read(row) for row in unit])


def frechet_or_none(found: torch.Tensor, real: torch.Tensor) -> float | None:
    """The Frechet distance, or None where there are fewer samples than dimensions and it would say nothing."""
    return frechet(found, real) if len(found) >= found.shape[1] else None


def averaged(rows: list[Row]) -> Row:
    """The mean of rows of one name over seeds, with the deviation of each figure."""
    first, spread, values = asdict(rows[0]), {}, {}
    for name, value in first.items():
        found = [getattr(row, name) for row in rows]
        if isinstance(value, float):
            values[name] = sum(found) / len(found)
            if len(found) > 1:
                spread[name] = math.sqrt(sum((x - values[name]) ** 2 for x in found) / (len(found) - 1))
    return Row(**{**first, **values, "seeds": len(rows), "spread": spread})
