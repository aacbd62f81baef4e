"""Adversarial training: a critic tells real from generated pictures (Goodfellow and others, 2014).

D(x) is the score of the critic, G(z) a generated picture. A game is a loss for the critic and a loss for the generator:

non-saturating   softplus(D(G(z))) + softplus(-D(x));             softplus(-D(G(z)))   (Goodfellow and others, 2014)
hinge            max(0, 1 - D(x)) + max(0, 1 + D(G(z)));          -D(G(z))             (Lim and Ye, 2017)
Wasserstein      D(G(z)) - D(x) + penalty (|grad D| - 1)^2;       -D(G(z))             (Gulrajani and others, 2017)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.objectives.augmentation import DRAWS, augmented
from sanbu.objectives.objective import Loss, LossFunction, Objective, ObjectiveConfig, Round, Turn, count_rows
from sanbu.space import Batch, Models


class AdversarialConfig(ObjectiveConfig):
    """Fields that all games share."""

    families: ClassVar[tuple[str, ...]] = ("generator",)
    augment: tuple[Literal["colour", "shift", "cutout"], ...] = Field(
        (), description="DiffAugment: augmentations of both real and generated pictures"
    )


def game(
    critic_loss: LossFunction, generator_loss: LossFunction, penalty: LossFunction | None, every: int, critic_steps: int
) -> Objective:
    """A round: critic turns, with probability 1 / every a penalty turn (weighted by every), then a generator turn."""

    def turns(round: Round) -> Iterator[Turn]:
        for _ in range(critic_steps):
            yield Turn("critic", with_noise(round), critic_loss, count_rows)
        if penalty is not None and int(round.noise.together().integers(every, 1)) == 0:
            yield Turn("critic", with_noise(round), penalty, count_rows)
        yield Turn("model", with_noise(round), generator_loss, count_rows)

    return Objective(
        generator_loss, count_rows, {"model": ("model",), "critic": ("critic",)}, attach=critic_of, turns=turns
    )


def critic_of(model: Any) -> dict[str, nn.Module]:
    """The critic that belongs to the generator."""
    return {"critic": model.critic()}


def with_noise(round: Round) -> Batch:
    """The rows with new noise for the generator, the augmentations and the interpolation of the gradient penalty."""
    rows = len(round.batch["label"])
    return {
        "image": round.batch["image"],
        "label": round.batch["label"],
        "noise": round.noise.normal(rows, math.prod(round.models["model"].latent)),
        "chance": round.noise.uniform(rows, 2 * DRAWS + 1),
    }


# -- the games --------------------------------------------------------------------------------------------------------


class NonSaturating(AdversarialConfig):
    """The non-saturating game with an R1 penalty."""

    kind: Literal["non-saturating"] = "non-saturating"
    r1: float = Field(0.1, ge=0, description="weight of the R1 penalty; 0 disables it")
    every: int = Field(4, ge=1, description="rounds between penalties, on average")

    def build(self) -> Objective:
        return non_saturating(self.r1, self.every, self.augment)


def non_saturating(r1: float, every: int, augment: tuple[str, ...]) -> Objective:
    """softplus(D(G(z))) + softplus(-D(x)); softplus(-D(G(z))); R1 on real pictures."""
    return game(
        make_critic_loss(augment, lambda real, fake: F.softplus(fake) + F.softplus(-real)),
        make_generator_loss(augment, lambda fake: F.softplus(-fake)),
        partial(r1_penalty, r1 * every, augment) if r1 else None,
        every,
        1,
    )


class Hinge(AdversarialConfig):
    """The hinge game with an R1 penalty."""

    kind: Literal["hinge"] = "hinge"
    r1: float = Field(0.1, ge=0, description="weight of the R1 penalty; 0 disables it")
    every: int = Field(4, ge=1, description="rounds between penalties, on average")

    def build(self) -> Objective:
        return hinge(self.r1, self.every, self.augment)


def hinge(r1: float, every: int, augment: tuple[str, ...]) -> Objective:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))); -D(G(z)); R1 on real pictures."""
    return game(
        make_critic_loss(augment, lambda real, fake: F.relu(1 - real) + F.relu(1 + fake)),
        make_generator_loss(augment, lambda fake: -fake),
        partial(r1_penalty, r1 * every, augment) if r1 else None,
        every,
        1,
    )


class Wasserstein(AdversarialConfig):
    """The Wasserstein game with a gradient penalty."""

    kind: Literal["wasserstein"] = "wasserstein"
    penalty: float = Field(10.0, gt=0, description="weight of the gradient penalty")
    critic_steps: int = Field(5, ge=1, description="critic turns per round")

    def build(self) -> Objective:
        return wasserstein(self.penalty, self.critic_steps, self.augment)


def wasserstein(penalty: float, critic_steps: int, augment: tuple[str, ...]) -> Objective:
    """D(G(z)) - D(x) + penalty (|grad D| - 1)^2; -D(G(z))."""
    plain = make_critic_loss(augment, lambda real, fake: fake - real)

    def critic_loss(models: Models, batch: Batch) -> Loss:
        loss = plain(models, batch)
        return Loss({"rows": loss.sums["rows"] + penalty * gradient_penalty(models, batch, augment)}, loss.metrics)

    return game(critic_loss, make_generator_loss(augment, lambda fake: -fake), None, 1, critic_steps)


def make_critic_loss(augment: tuple[str, ...], loss: Callable[[Tensor, Tensor], Tensor]) -> LossFunction:
    """The loss function of a critic, from its scores of real and of generated pictures."""

    def critic_loss(models: Models, batch: Batch) -> Loss:
        real, fake = real_and_fake(models, batch, augment)
        real_B, fake_B = models["critic"](real, batch["label"]), models["critic"](fake, batch["label"])
        rows = real_B.new_tensor(len(real_B))
        metrics = {"right": (((real_B > 0).float() + (fake_B < 0).float()).sum() / 2, rows)}
        return Loss({"rows": loss(real_B, fake_B).sum()}, metrics)

    return critic_loss


def make_generator_loss(augment: tuple[str, ...], loss: Callable[[Tensor], Tensor]) -> LossFunction:
    """The loss function of a generator, from the scores of its pictures."""

    def generator_loss(models: Models, batch: Batch) -> Loss:
        picture = models["model"](batch["noise"], batch["label"])
        fake = augmented(picture, batch["chance"][:, :DRAWS], augment)
        return Loss({"rows": loss(models["critic"](fake, batch["label"])).sum()})

    return generator_loss


def real_and_fake(models: Models, batch: Batch, augment: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Augmented real and generated pictures for the critic, without gradient to the generator."""
    with torch.no_grad():
        fake = models["model"](batch["noise"], batch["label"])
    first, second = batch["chance"][:, : 2 * DRAWS].chunk(2, 1)
    return augmented(batch["image"], second, augment), augmented(fake, first, augment)


def r1_penalty(weight: float, augment: tuple[str, ...], models: Models, batch: Batch) -> Loss:
    """R1: weight / 2 |grad D(x)|^2 at real pictures (Mescheder and others, 2018)."""
    real = augmented(batch["image"], batch["chance"][:, :DRAWS], augment).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(models["critic"](real, batch["label"]).sum(), real, create_graph=True)
    total = slope.square().sum()
    return Loss({"rows": weight / 2 * total}, {"slope": (total.detach(), total.new_tensor(len(real)))})


def gradient_penalty(models: Models, batch: Batch, augment: tuple[str, ...]) -> Tensor:
    """The sum over rows of (|grad D| - 1)^2 at random interpolations of real and generated pictures."""
    real, fake = real_and_fake(models, batch, augment)
    part = batch["chance"][:, -1].view(-1, 1, 1, 1)
    middle = torch.lerp(real, fake, part).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(models["critic"](middle, batch["label"]).sum(), middle, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().sum()
