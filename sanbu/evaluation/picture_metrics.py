"""Quality, diversity and copying of pictures, with a fixed number of samples and the same floors in every table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sanbu.config import SanbuError, change
from sanbu.data.data import DataConfig
from sanbu.evaluation.distances import (
    class_variation,
    copy_distance,
    frechet,
    kid,
    kid_and_error,
    nearest,
    neighbourhoods,
)
from sanbu.evaluation.features import Classifier, pixels
from sanbu.evaluation.floors import FLOORS, Floor

MOST = 2000  # pictures per distance
NEEDED = 100  # with fewer pictures, the noise of the distances hides what they measure
SEED = 20260102  # of the pictures that are used where there are more


@dataclass(frozen=True)
class Row:
    """One row of the table. Distances are on pixels in [0, 1], or on features where the name says so. None: unknown.

    kid: unbiased, 0 is best; kid_error: its standard error. precision, recall, density, coverage: 5 neighbours.
    copy_rate: fraction of samples that are closer to a training picture than 95 % of unseen pictures are. pictures:
    number of samples, and of unseen pictures. nfe: evaluations of the model per picture. ms_per_image: one thread,
    batches of 512; ms_alone: batch of 1. memory_mb: peak memory of training. spread: standard deviations over seeds.
    group: the run or contestant, where several rows are ways to sample from it.
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
    kid_error: float | None = None
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
    pictures: int = 0
    group: str = ""
    seeds: int = 1
    spread: dict[str, float] = field(default_factory=dict)

    @property
    def floor(self) -> bool:
        """True for baseline rows, made without a learned model."""
        return self.strategy == "floor"


class Judge:
    """Scores samples against the test pictures of a data config. Raises SanbuError if there are too few pictures.

    data: all the pictures. train, test: uint8, as the codec reads them; labels: the class of each, by part. Where there
    are more pictures than are used, a random part of them is, because many sources are sorted by class.
    """

    def __init__(self, config: DataConfig) -> None:
        labelled: Any = change(config, {"classes": "auto"}).resolve()  # labels even if the runs are unconditional
        data = labelled.build()
        self.data, self.codec, self.classes, self.levels = data, data.codec, data.space.classes, data.space.vocabulary
        parts = {name: data.take(some(data.places[name], 10 * MOST)) for name in ("train", "test")}
        self.count = min(MOST, len(parts["test"]["label"]), len(parts["train"]["label"]))
        if self.count < NEEDED:
            raise SanbuError(
                too_few(labelled, len(parts["train"]["label"]), len(parts["test"]["label"]), len(data.labels))
            )
        self.train = np.stack([self.codec.read(row) for row in parts["train"]["levels"]])
        self.test = np.stack([self.codec.read(row) for row in parts["test"]["levels"]])
        self.labels = {name: part["label"].numpy() for name, part in parts.items()}

    @cached_property
    def classifier(self) -> Classifier | None:
        """The classifier whose features are used; None for pictures of fewer than two classes."""
        labels = self.labels["train"]
        return Classifier(self.train, labels) if self.classes > 1 and len(np.unique(labels)) > 1 else None

    @cached_property
    def flat(self) -> torch.Tensor:
        """The training pictures as [N, D] in [0, 1]."""
        return pixels(self.train)

    @cached_property
    def near(self) -> torch.Tensor:
        """The distance to a training picture below which a sample counts as a copy."""
        return copy_distance(self.flat, pixels(self.test[: self.count]))

    def score(self, samples: np.ndarray) -> dict[str, Any]:
        """All distances of uint8 samples [N, ...] to the test pictures; N must be `self.count`."""
        real, found = pixels(self.test[: self.count]), pixels(samples)
        distance, error = kid_and_error(found, real)
        scores = {"kid": distance, "kid_error": error, "frechet": frechet_or_none(found, real)}
        scores |= neighbourhoods(found, real)
        scores["copy_rate"] = float((nearest(found, self.flat) <= self.near).double().mean())
        if self.classifier is not None:
            real = self.classifier.features(self.test[: self.count])
            found = self.classifier.features(samples)
            scores |= {"kid_features": kid(found, real), "frechet_features": frechet_or_none(found, real)}
            predicted, labels = self.classifier.labels(samples), self.labels["test"][: self.count]
            scores["class_variation"] = class_variation(predicted, labels, self.classes)
        return scores | {"pictures": self.count}

    def floors(self, seeds: int = 3, progress: Callable[[str], object] = lambda name: None) -> list[Row]:
        """The baseline rows, averaged over seeds. progress: called with the name of each after each seed of it."""
        rows = []
        for name, floor in FLOORS.items():
            scores = []
            for seed in range(seeds):
                scores.append(self.score(self.baseline(floor, seed)))
                progress(name)
            rows.append(mean_row([Row(name, "floor", **score) for score in scores]))
        return rows

    def baseline(self, floor: Floor, seed: int) -> np.ndarray:
        """Pictures of a floor, uint8 and shaped like the training pictures, with the levels of their space."""
        unit = floor(self.flat.numpy(), self.count, seed).clip(0, 1)
        levels = np.rint(unit * (self.levels - 1))
        return np.rint(levels * (255 / (self.levels - 1))).astype(np.uint8).reshape(-1, *self.train.shape[1:])


def some(places: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the places, in a random order that is always the same."""
    return np.random.default_rng(SEED).permutation(places)[:most]


def too_few(data: Any, train: int, test: int, count: int) -> str:
    """What is missing for distances, and the fraction of test pictures that would do."""
    wanted = math.ceil(110 * NEEDED / max(1, count)) / 100
    fits = wanted + data.validation < 1 and count * (1 - wanted - data.validation) > NEEDED
    cure = f"train again and set data.test higher (data.test={wanted:g})" if fits else "add pictures"
    needed = f"{train} training and {test} test pictures, but {NEEDED} of each are needed for distances"
    return f"{data.path}: {needed}; {cure}"


def frechet_or_none(found: torch.Tensor, real: torch.Tensor) -> float | None:
    """The Frechet distance; None with fewer samples than dimensions, where its covariances are singular."""
    return frechet(found, real) if len(found) >= found.shape[1] else None


def mean_row(rows: list[Row]) -> Row:
    """The mean over seeds of rows of one name, with the standard deviation of each figure.

    The error of the mean KID follows from the errors of the rows, or from their spread where that is larger.
    """
    first, spread, values = asdict(rows[0]), {}, {}
    for name, value in first.items():
        found = [getattr(row, name) for row in rows]
        if isinstance(value, float):
            values[name] = sum(found) / len(found)
            if len(found) > 1:
                spread[name] = statistics.stdev(found)
    if rows[0].kid_error is not None:
        spread.pop("kid_error", None)
        drawn = math.hypot(*(row.kid_error or 0.0 for row in rows)) / len(rows)
        values["kid_error"] = max(drawn, spread.get("kid", 0.0) / math.sqrt(len(rows)))
    return Row(**{**first, **values, "seeds": len(rows), "spread": spread})
