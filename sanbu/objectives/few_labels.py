"""Learning with few labels: each row has a labelled picture and U unlabelled ones.

loss = CE(f(view of x), y) + weight / (B U) sum_u [confident] CE(f(view of u), pseudo-label)

pseudo-label   argmax f(weak view) if its probability is above a threshold; f sees the same weak view (Lee, 2013)
fixmatch       the same pseudo-label, but f sees a strong view                              (Sohn and others, 2020)
freematch      FixMatch with thresholds that follow the model's confidence, by class        (Wang and others, 2023):
               t <- m t + (1 - m) mean max q,  p <- m p + (1 - m) mean q,  threshold of class c: t p_c / max p
mean-teacher   |softmax f(weak view) - softmax g(another weak view)|^2, g an average of f (Tarvainen and Valpola, 2017)

The mean is over all unlabelled pictures, confident or not. Pseudo-labels are made in `experience`, without
gradient; a picture below the threshold adds nothing to the loss, so no strong view of it is made. FreeMatch's
further term, which rewards fair class frequencies and couples rows, is left out;
`alignment` serves the same end within rows:

q <- q / p^alignment, normalised (Berthelot and others, 2020, for classes that are equally frequent)

B rows, U unlabelled pictures of each, K classes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import SanbuError
from sanbu.layers.average import Average
from sanbu.objectives.answers import fraction
from sanbu.objectives.objective import Loss, Objective, Round
from sanbu.objectives.supervised import SupervisedConfig
from sanbu.objectives.views import STRONG, WEAK, Change, draws, views
from sanbu.space import IGNORED, Batch, Models


class FewLabelsConfig(SupervisedConfig):
    """What all of them share."""

    input: str = Field("image", description="name of the labelled picture in a batch")
    target: str = Field("label", description="name of its label in a batch")
    labelled: Literal["weak", "strong"] = Field("strong", description="which views of the labelled pictures are shown")
    weak: Change = WEAK
    strong: Change = STRONG

    def read(self, outputs_BO: Tensor) -> dict[str, Tensor]:
        law_BO = outputs_BO.float().softmax(1)
        return {f"class {number}": law_B for number, law_B in enumerate(law_BO.unbind(1))}

    def shown(self, round: Round) -> Batch:
        """The labelled pictures: views of them while learning, otherwise as they are."""
        picture, label = round.batch[self.input], round.batch[self.target]
        if round.learning:
            change = self.weak if self.labelled == "weak" else self.strong
            picture = views(change, picture, draws(round.noise, len(picture)))
        return {self.input: picture, self.target: label}


class Augmented(FewLabelsConfig):
    """Cross-entropy of views of the labelled pictures: the baseline, which uses no unlabelled ones."""

    kind: Literal["augmented"] = "augmented"

    def build(self) -> Objective:
        def loss(models: Models, batch: Batch) -> Loss:
            return labelled_loss(models["model"](batch[self.input]), batch[self.target])

        return Objective(loss, count, experience=self.shown)


def labelled_loss(scores_BK: Tensor, label_B: Tensor) -> Loss:
    """Cross-entropy, and how many labels are found."""
    scores_BK = scores_BK.float()
    total = F.cross_entropy(scores_BK, label_B, reduction="sum")
    return Loss({"labelled": total}, {"accuracy": fraction(scores_BK.argmax(1) == label_B)})


def count(batch: Batch) -> dict[str, float]:
    """All labelled pictures, and all unlabelled ones, whether the model is confident or not."""
    rows = float(len(next(iter(batch.values()))))
    each = batch["view"].shape[1] if "view" in batch else 0
    return {"labelled": rows, **({"unlabelled": rows * each} if each else {})}


def unlabelled_of(round: Round) -> Tensor:
    """The unlabelled pictures of a round, [B, U, C, H, W]."""
    if "unlabelled" not in round.batch:
        raise SanbuError("objective: this kind needs unlabelled pictures; set data=few-labels, data.ratio=1 or more")
    return round.batch["unlabelled"]


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[Any]:
    """A model in evaluation mode: no dropout in its predictions."""
    training = model.training
    try:
        yield model.eval()
    finally:
        model.train(training)


def beliefs(model: Any, pictures_NCHW: Tensor) -> Tensor:
    """The probabilities q_NK that a model gives the classes, without gradient."""
    with torch.no_grad(), evaluating(model) as judge:
        found: Tensor = judge(pictures_NCHW).float().softmax(1)
    return found


# -- pseudo-labels ----------------------------------------------------------------------------------------------------


class GuessConfig(FewLabelsConfig):
    """What objectives share that learn from confident pseudo-labels."""

    weight: float = Field(1.0, ge=0, description="weight of the unlabelled pictures")
    alignment: float = Field(
        0.0, ge=0, le=1, description="how far pseudo-labels move toward equally frequent classes: 0 not at all, 1 fully"
    )
    momentum: float = Field(0.999, ge=0, lt=1, description="of the running means of predictions, which alignment uses")


class PseudoLabel(GuessConfig):
    """The model's own predictions as labels of the same weak view."""

    kind: Literal["pseudo-label"] = "pseudo-label"
    threshold: float = Field(0.95, ge=0, le=1, description="pseudo-labels count above this probability")

    def build(self) -> Objective:
        return guessing(self, self.weak, self.threshold)


class FixMatch(GuessConfig):
    """Predictions on a weak view as labels of a strong view."""

    kind: Literal["fixmatch"] = "fixmatch"
    threshold: float = Field(0.95, ge=0, le=1, description="pseudo-labels count above this probability")

    def build(self) -> Objective:
        return guessing(self, self.strong, self.threshold)


class FreeMatch(GuessConfig):
    """FixMatch with a threshold per class that rises with the model's confidence."""

    kind: Literal["freematch"] = "freematch"

    def build(self) -> Objective:
        return guessing(self, self.strong, None)


class Means(nn.Module):
    """Running means of predictions: their confidence, and the frequency of each class; both begin at 1 / K."""

    sure: Tensor
    share: Tensor

    def __init__(self, classes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("sure", torch.tensor(1.0 / classes))
        self.register_buffer("share", torch.full((classes,), 1.0 / classes))

    @torch.no_grad()
    def follow_beliefs(self, law_NK: Tensor) -> None:
        """Move both means toward those of a batch."""
        self.sure.lerp_(law_NK.max(1).values.mean(), 1 - self.momentum)
        self.share.lerp_(law_NK.mean(0), 1 - self.momentum)

    def aligned(self, law_NK: Tensor, alignment: float) -> Tensor:
        """Beliefs after division by the classes' frequencies."""
        moved = law_NK / self.share.clamp(min=1e-6) ** alignment
        return moved / moved.sum(1, keepdim=True)

    def thresholds(self) -> Tensor:
        """The threshold of each class, [K]."""
        return self.sure * self.share / self.share.max()


def classes_of(model: nn.Module) -> int:
    """The number of classes: the outputs of the last linear layer."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise SanbuError("model: this objective counts the classes of the last linear layer, but there is none")
    return linear[-1].out_features


def guessing(config: GuessConfig, change: Change, threshold: float | None) -> Objective:
    """Pseudo-labels from weak views, as targets on views of that change. threshold: None for FreeMatch's."""
    keeps = threshold is None or config.alignment > 0

    def attach(model: nn.Module) -> dict[str, nn.Module]:
        return {"means": Means(classes_of(model), config.momentum)} if keeps else {}

    def experience(round: Round) -> Batch:
        shown = config.shown(round)
        if not round.learning:
            return shown
        pictures = unlabelled_of(round)
        B, U = pictures.shape[:2]
        flat, means = pictures.flatten(0, 1), round.models.get("means")
        weak = views(config.weak, flat, draws(round.noise, B, U))
        law_NK = beliefs(round.models["model"], weak)
        if means is not None:
            means.follow_beliefs(law_NK)
            law_NK = means.aligned(law_NK, config.alignment)
        surest_N, guess_N = law_NK.max(1)
        needed_N = torch.full_like(surest_N, threshold or 0.0)
        if means is not None and threshold is None:
            needed_N = means.thresholds()[guess_N]
        sure_N = surest_N > needed_N
        chance_NK = draws(round.noise, B, U)
        view = weak if change == config.weak else views_of(change, flat, chance_NK, sure_N)
        more = {"guess": guess_N.where(sure_N, IGNORED).view(B, U), "view": view.view_as(pictures)}
        if threshold is None:
            more["threshold"] = needed_N.view(B, U)
        return shown | more | {name: round.batch[name] for name in ("hidden",) if name in round.batch}

    def loss(models: Models, batch: Batch) -> Loss:
        return guessed_loss(config, models["model"], batch)

    return Objective(loss, count, attach=attach, experience=experience)


def views_of(change: Change, flat_NCHW: Tensor, chance_NK: Tensor, sure_N: Tensor) -> Tensor:
    """Views of the pictures above the threshold; the others are not used and stay as they are."""
    places = sure_N.nonzero().flatten()
    return flat_NCHW.index_copy(0, places, views(change, flat_NCHW[places], chance_NK[places]))


def guessed_loss(config: GuessConfig, model: Any, batch: Batch) -> Loss:
    """Both terms, in one pass over the labelled pictures and those above the threshold."""
    picture, label_B = batch[config.input], batch[config.target]
    if "guess" not in batch:
        return labelled_loss(model(picture), label_B)
    guess_BU, rows = batch["guess"], len(picture)
    sure_BU = guess_BU != IGNORED
    guess_N = guess_BU[sure_BU]
    scores = model(torch.cat((picture, batch["view"][sure_BU]))).float()
    found = labelled_loss(scores[:rows], label_B)
    total = config.weight * F.cross_entropy(scores[rows:], guess_N, reduction="sum")
    return Loss(found.sums | {"unlabelled": total}, found.metrics | guess_metrics(batch, sure_BU))


def guess_metrics(batch: Batch, sure_BU: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The fraction of pseudo-labels above the threshold; the correct ones among them; the mean threshold."""
    metrics = {"sure": fraction(sure_BU)}
    if "hidden" in batch:
        known = sure_BU & (batch["hidden"] != IGNORED)
        metrics["right"] = fraction((batch["guess"] == batch["hidden"])[known])
    if "threshold" in batch:
        metrics["threshold"] = batch["threshold"].sum(), torch.tensor(float(sure_BU.numel()))
    return metrics


# -- consistency ------------------------------------------------------------------------------------------------------


class MeanTeacher(FewLabelsConfig):
    """The beliefs of an averaged model on another weak view as targets."""

    kind: Literal["mean-teacher"] = "mean-teacher"
    decay: float = Field(0.99, ge=0, lt=1, description="of the teacher, an exponential average of the model")
    weight: float = Field(20.0, ge=0, description="weight of the unlabelled pictures, at the end of the ramp")
    ramp: int = Field(0, ge=0, description="rounds in which the weight rises, as exp(-5 (1 - t)^2)")

    def build(self) -> Objective:
        return mean_teacher(self)


def mean_teacher(config: MeanTeacher) -> Objective:
    """The squared distance of beliefs, summed over classes."""

    def experience(round: Round) -> Batch:
        shown = config.shown(round)
        if not round.learning:
            return shown
        pictures, teacher = unlabelled_of(round), round.models["teacher"]
        B, U = pictures.shape[:2]
        flat = pictures.flatten(0, 1)
        first, second = (views(config.weak, flat, draws(round.noise, B, U)) for _ in range(2))
        belief = beliefs(teacher, second).view(B, U, -1)
        weight = config.weight * rise(float(teacher.rounds), config.ramp)
        return shown | {
            "view": first.view_as(pictures),
            "belief": belief,
            "weight": torch.full((B,), weight, device=flat.device),
        }

    def loss(models: Models, batch: Batch) -> Loss:
        picture, label_B = batch[config.input], batch[config.target]
        if "view" not in batch:
            return labelled_loss(models["model"](picture), label_B)
        scores = models["model"](torch.cat((picture, batch["view"].flatten(0, 1)))).float()
        found = labelled_loss(scores[: len(picture)], label_B)
        law_BUK = scores[len(picture) :].softmax(1).view_as(batch["belief"])
        distance_BU = (law_BUK - batch["belief"]).square().sum(2)
        return Loss(found.sums | {"unlabelled": (batch["weight"][:, None] * distance_BU).sum()}, found.metrics)

    return Objective(loss, count, attach=lambda model: {"teacher": Average(model, config.decay)}, experience=experience)


def rise(rounds: float, ramp: int) -> float:
    """The factor of the weight after so many rounds, up to 1."""
    return math.exp(-5 * (1 - rounds / ramp) ** 2) if rounds < ramp else 1.0
