"""Pictures of which few have a label: FreeMatch, FixMatch, Mean Teacher, pseudo-labels, and pretraining before them."""

from __future__ import annotations

from typing import Any

from sanbu.config import ConfigError, nearest
from sanbu.data.few_labels import FewLabels
from sanbu.data.image_rows import Images
from sanbu.layers.average import Exponential
from sanbu.machine import MachineConfig
from sanbu.models.predictors.cnn import CNN, WideResNet
from sanbu.models.predictors.reconstructor import Reconstructor
from sanbu.objectives.few_labels import Augmented, FewLabelsConfig, FixMatch, FreeMatch, MeanTeacher, PseudoLabel
from sanbu.objectives.reconstruction import Reconstruction
from sanbu.objectives.views import Change
from sanbu.optimizers.gradient import SGD, Adam
from sanbu.optimizers.rate import CosineRate
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.text import pick
from sanbu.strategies.prediction import Prediction

METHODS: dict[str, FewLabelsConfig] = {
    "supervised": Augmented(),
    "pseudo-label": PseudoLabel(),
    "mean-teacher": MeanTeacher(),
    "fixmatch": FixMatch(),
    "freematch": FreeMatch(momentum=0.99),
}


def few_labels(
    size: str = "nano", path: str = "", labels: str = "40", method: str = "freematch", start: str = ""
) -> Recipe:
    """Few labels, many pictures without: method=freematch, fixmatch, mean-teacher, pseudo-label or supervised."""
    pick({"nano": 0, "cifar10": 0}, size)
    if method not in METHODS:
        raise ConfigError(f"method: given {method!r}, allowed: {', '.join(METHODS)}{nearest(method, METHODS)}")
    if not labels.isdecimal():
        raise ConfigError(f"labels: given {labels!r}, but a number of labelled pictures is needed, as in labels=40")
    ratio = 0 if method == "supervised" else 2
    if size != "nano":
        return published(path or "hub:uoft-cs/cifar10", int(labels), METHODS[method], start)
    return Recipe(
        name="few-labels",
        data=FewLabels(path=path or "digits", labels=int(labels), ratio=ratio),
        model=CNN(),
        objective=METHODS[method],
        optimizer=Adam(learning_rate=2e-3, rate=CosineRate(warmup=0.0, final=0.05)),
        strategy=Prediction(),
        average=Exponential(decay=0.99),
        parents={"model": start} if start else {},
        schedule=Schedule(steps=2000, batch=32, evaluate_every=200, evaluate_rows=1000, checkpoint_every=500),
        machine=MachineConfig(precision="float32"),  # small convolutions on a CPU gain nothing from less
    )


def published(path: str, labels: int, objective: FewLabelsConfig, start: str) -> Recipe:
    """The setting of FixMatch on CIFAR-10 (Sohn and others, 2020), with group norms and the views of this library."""
    ratio = 0 if isinstance(objective, Augmented) else 7
    weak = Change(shift=0.125, flip=True)
    strong = Change(
        shift=0.3, flip=True, turn=30.0, scale=0.1, shear=0.3, brightness=0.25, contrast=0.9, hole=0.5
    )  # fmt: skip
    shown: dict[str, Any] = {"weak": weak, "strong": strong, "labelled": "weak"}
    if hasattr(objective, "momentum"):
        shown["momentum"] = 0.999
    if isinstance(objective, MeanTeacher):
        shown |= {"decay": 0.999, "ramp": 400_000}
    return Recipe(
        name="few-labels",
        data=FewLabels(path=path, labels=labels, ratio=ratio, shape=(3, 32, 32), levels=256, classes=10),
        model=WideResNet(depth=28, width=32),
        objective=objective.model_copy(update=shown),
        optimizer=SGD(learning_rate=0.03, momentum=0.9, weight_decay=5e-4, rate=CosineRate(warmup=0.0, final=0.2)),
        strategy=Prediction(),
        average=Exponential(decay=0.999),
        parents={"model": start} if start else {},
        schedule=Schedule(
            steps=1 << 20, batch=64, micro_batch=64, evaluate_every=5000, evaluate_rows=5000, checkpoint_every=5000
        ),
    )  # fmt: skip


def reconstruct(path: str = "digits") -> Recipe:
    """Pretraining without labels: pictures drawn from views with a part hidden; then few-labels start=RUN."""
    return Recipe(
        name="reconstruct",
        data=Images(path=path),
        model=Reconstructor(),
        objective=Reconstruction(),
        optimizer=Adam(learning_rate=2e-3, rate=CosineRate(warmup=0.0, final=0.05)),
        strategy=Prediction(),
        schedule=Schedule(steps=2000, batch=64, evaluate_every=200, evaluate_rows=512, checkpoint_every=500),
        machine=MachineConfig(precision="float32"),
    )
