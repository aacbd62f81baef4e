"""Supervised learning: inputs x with a target y, a number or a label.

squared        sum_o (f(x)_o - y_o)^2
absolute       sum_o |f(x)_o - y_o|
quantile       sum_q max(q (y - f(x)_q), (q - 1) (y - f(x)_q))             (Koenker and Bassett, 1978)
gaussian       -log N(y; mean(x), deviation(x)^2), outputs: mean and log deviation
accuracy       1 where argmax f(x) is not y
cross-entropy  -w_y log softmax(f(x))_y, over the sum of the weights

Each is a mean over rows. B rows, O outputs of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.config import SanbuError, kind_of
from sanbu.objectives.answers import fraction
from sanbu.objectives.objective import Loss, Metrics, Objective, ObjectiveConfig, count_rows
from sanbu.space import Batch, Models

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
NINETY = 1.6448536  # deviations to both sides hold 90 % of a normal law
Judge = Callable[[Tensor, Tensor], tuple[Tensor, Metrics]]  # outputs_BO, target -> the summed loss and metrics


class SupervisedConfig(ObjectiveConfig):
    """What all of them share: the names of the tensors in a batch."""

    families: ClassVar[tuple[str, ...]] = ("predictor",)
    measure: ClassVar[str] = "predictions"
    input: str = Field("x", description="name of the input in a batch; image for pictures")
    target: str = Field("y", description="name of the target in a batch; label for pictures")

    @classmethod
    def adopt(cls, replaced: Any) -> dict[str, Any]:
        """The names of the tensors, so that objective=accuracy measures what the replaced objective did."""
        found = replaced if isinstance(replaced, dict) else {}
        return {name: found[name] for name in ("input", "target") if name in found}

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Input and target. Raises SanbuError for a name that the batch does not have."""
        for field in ("input", "target"):
            name = getattr(self, field)
            if name not in batch:
                raise SanbuError(f"objective.{field}: given {name!r}, allowed here: {', '.join(batch)}")
        return batch[self.input], batch[self.target]

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        """What the outputs say of each row, by name: the number itself first, or the probability of each class."""
        raise NotImplementedError

    def interval(self, outputs_BO: Tensor) -> tuple[Tensor, Tensor, float] | None:
        """Where the target is expected, from and to, and with which probability; None for a number without spread."""
        return None


def supervised(config: SupervisedConfig, judge: Judge, outputs: int | None = None) -> Objective:
    """The mean of a judge over rows. outputs: how many the model must have, None for any."""

    def loss(models: Models, batch: Batch) -> Loss:
        inputs, target = config.pair(batch)
        found_BO = models["model"](inputs).float()
        if outputs is not None and found_BO.shape[1] != outputs:
            kind, given = kind_of(config), found_BO.shape[1]
            raise SanbuError(f"model.outputs: given {given}, but the objective {kind!r} needs {outputs}")
        total, metrics = judge(found_BO, target)
        return Loss({"rows": total}, metrics)

    return Objective(loss, count_rows)


def numbered(name: str, outputs_BO: Tensor) -> dict[str, Tensor]:
    """The outputs by a name, with a number where there are several."""
    if outputs_BO.shape[1] == 1:
        return {name: outputs_BO[:, 0]}
    return {f"{name} {number}": each for number, each in enumerate(outputs_BO.unbind(1), 1)}


def chances(scores_BO: Tensor) -> dict[str, Tensor]:
    """The probability of each class."""
    law_BO = scores_BO.float().softmax(1)
    return {f"class {number}": law_B for number, law_B in enumerate(law_BO.unbind(1))}


def rows_of(target: Tensor) -> Tensor:
    """The number of rows, as a tensor."""
    return torch.tensor(float(len(target)))


def column(outputs_BO: Tensor, target: Tensor) -> Tensor:
    """The target as [B, O] or [B, 1]. Raises SanbuError where several outputs and targets do not match."""
    found = target.float().view(len(outputs_BO), -1)
    if found.shape[1] not in (1, outputs_BO.shape[1]):
        given = outputs_BO.shape[1]
        raise SanbuError(f"model.outputs: given {given}, but a row has {found.shape[1]} targets; give one for each")
    return found


class Squared(SupervisedConfig):
    """Squared error: the model learns the mean."""

    kind: Literal["squared"] = "squared"

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        return numbered("mean", outputs_BO)

    def build(self) -> Objective:
        return supervised(self, squared)


def squared(outputs_BO: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
    """The squared error, summed over outputs."""
    error = outputs_BO - column(outputs_BO, target)
    return error.square().sum(), {"absolute_error": (error.detach().abs().sum(), rows_of(target))}


class Absolute(SupervisedConfig):
    """Absolute error: the model learns the median."""

    kind: Literal["absolute"] = "absolute"

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        return numbered("median", outputs_BO)

    def build(self) -> Objective:
        return supervised(self, absolute)


def absolute(outputs_BO: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
    """The absolute error, summed over outputs."""
    error = outputs_BO - column(outputs_BO, target)
    return error.abs().sum(), {"squared_error": (error.detach().square().sum(), rows_of(target))}


class Quantile(SupervisedConfig):
    """The pinball loss: each output learns a quantile, so that pairs of them are prediction intervals."""

    kind: Literal["quantile"] = "quantile"
    levels: tuple[float, ...] = Field((0.05, 0.5, 0.95), min_length=1, description="the quantile of each output")

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        middle = min(range(len(self.levels)), key=lambda place: abs(self.levels[place] - 0.5))
        order = sorted(range(len(self.levels)), key=lambda place: place != middle)  # the middle first
        return {f"{100 * self.levels[place]:g}%": outputs_BO[:, place] for place in order}

    def interval(self, outputs_BO: Tensor) -> tuple[Tensor, Tensor, float] | None:
        low, high = outputs_BO[:, 0], outputs_BO[:, -1]
        return low, torch.maximum(low, high), max(self.levels) - min(self.levels)

    def build(self) -> Objective:
        return supervised(self, quantile(self.levels), len(self.levels))


def quantile(levels: tuple[float, ...]) -> Judge:
    """The pinball loss, summed over levels; the fraction of targets below the largest quantile minus the smallest."""

    def judge(outputs_BO: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
        error = column(outputs_BO, target) - outputs_BO
        level_O = error.new_tensor(levels)
        inside = (error[:, 0] >= 0) & (error[:, -1] <= 0)
        return torch.maximum(level_O * error, (level_O - 1) * error).sum(), {"inside": fraction(inside)}

    return judge


class Gaussian(SupervisedConfig):
    """A normal law of the target: the outputs are its mean and the logarithm of its deviation."""

    kind: Literal["gaussian"] = "gaussian"

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        return {"mean": outputs_BO[:, 0], "deviation": outputs_BO[:, 1].exp()}

    def interval(self, outputs_BO: Tensor) -> tuple[Tensor, Tensor, float] | None:
        mean, reach = outputs_BO[:, 0], NINETY * outputs_BO[:, 1].exp()
        return mean - reach, mean + reach, 0.9

    def build(self) -> Objective:
        return supervised(self, gaussian, 2)


def gaussian(outputs_BO: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
    """-log p of the target."""
    mean_B, log_deviation_B = outputs_BO.unbind(1)
    error = target.float().view(-1) - mean_B
    scaled = error * (-log_deviation_B).exp()
    nats = 0.5 * scaled.square() + log_deviation_B + HALF_LOG_2_PI
    return nats.sum(), {"squared_error": (error.detach().square().sum(), rows_of(target))}


class Accuracy(SupervisedConfig):
    """The fraction of labels that are wrong: it has no gradient, and is for searches by values alone."""

    kind: Literal["accuracy"] = "accuracy"

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        return chances(outputs_BO)

    def build(self) -> Objective:
        return supervised(self, accuracy)


def accuracy(scores_BO: Tensor, label_B: Tensor) -> tuple[Tensor, Metrics]:
    """The number of rows whose highest score is not that of the label."""
    right_B = scores_BO.argmax(1) == label_B
    return (~right_B).float().sum(), {"accuracy": fraction(right_B)}


class CrossEntropy(SupervisedConfig):
    """The negative log-probability of the label."""

    kind: Literal["cross-entropy"] = "cross-entropy"
    weights: tuple[float, ...] = Field((), description="weight of each class; none: all are 1")

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        return chances(outputs_BO)

    def build(self) -> Objective:
        return cross_entropy(self)


def cross_entropy(config: CrossEntropy) -> Objective:
    """The weighted mean over rows of -log p(label)."""

    def loss(models: Models, batch: Batch) -> Loss:
        inputs, label_B = config.pair(batch)
        scores_BO = models["model"](inputs).float()
        weight = scores_BO.new_tensor(config.weights) if config.weights else None
        if weight is not None and len(weight) != scores_BO.shape[1]:
            raise SanbuError(
                f"objective.weights: given {len(weight)}, but there are {scores_BO.shape[1]} classes; give one for each"
            )
        right = fraction(scores_BO.argmax(1) == label_B)
        return Loss({"rows": negative_log(scores_BO, label_B, weight)}, {"accuracy": right})

    def count(batch: Batch) -> dict[str, float]:
        if not config.weights:
            return count_rows(batch)
        return {"rows": float(torch.tensor(config.weights)[batch[config.target].cpu()].sum())}

    return Objective(loss, count)


def negative_log(scores_BO: Tensor, label_B: Tensor, weight: Tensor | None = None) -> Tensor:
    """The sum of -w log softmax(scores) at the labels.

    Without a gradient the softmax is along columns, which vector instructions can do: for ten classes and a population
    five times as fast as along rows, and equal up to rounding.
    """
    if torch.is_grad_enabled():
        return F.cross_entropy(scores_BO, label_B, weight, reduction="sum")
    logs_OB = scores_BO.mT.contiguous().log_softmax(0)
    return F.nll_loss(logs_OB.mT, label_B, weight, reduction="sum")
