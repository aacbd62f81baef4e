"""Classifiers of pictures: a perceptron on the digits, small enough for every search, with or without a gradient."""

from __future__ import annotations

from sanbu.data.image_rows import Images
from sanbu.machine import MachineConfig
from sanbu.models.predictors.mlp import MLP
from sanbu.objectives.supervised import CrossEntropy
from sanbu.optimizers.gradient import AdamW
from sanbu.recipe import Recipe, Schedule
from sanbu.strategies.prediction import Prediction


def digits_classify(path: str = "digits") -> Recipe:
    """Class of a picture by a perceptron; optimizer=evolution, genetic, snes or cma finds it without a gradient."""
    return Recipe(
        name="digits-classify",
        data=Images(path=path, validation=0.2, test=0.0).resolve(),
        model=MLP(layers=1, width=32),
        objective=CrossEntropy(input="image", target="label"),
        optimizer=AdamW(learning_rate=0.01, weight_decay=0.01),
        strategy=Prediction(),
        machine=MachineConfig(precision="float32"),
        schedule=Schedule(steps=1000, batch=128, evaluate_every=100, evaluate_rows=1000, checkpoint_every=0),
    )
