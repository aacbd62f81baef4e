"""Adversarial training: a critic separates real from generated pictures (Goodfellow and others, 2014).

D(x) is the critic's score, G(z) a picture. Each game is a pair of losses; all share the turns.
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

from sanbu.objectives.objective import Loss, LossFunction, Objective, ObjectiveConfig, Round, Turn, count_rows
from sanbu.space import Batch, Models

AUGMENTATION = 6  # random numbers that one row's augmentation takes


class AdversarialConfig(ObjectiveConfig):
    """What the games have in common."""

    families: ClassVar[tuple[str, ...]] = ("generator",)
    augment: tuple[Literal["colour", "shift", "cutout"], ...] = Field(
        (), description="DiffAugment: changes made to real and generated pictures alike"
    )


def game(
    critic_loss: LossFunction, generator_loss: LossFunction, penalty: LossFunction | None, every: int, critic_steps: int
) -> Objective:
    """Each round: critic turns, a penalty turn with probability 1 / `every`, weighted by `every`, a generator turn."""

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
    """The critic that the generator brings."""
    return {"critic": model.critic()}


def with_noise(round: Round) -> Batch:
    """The rows with new noise for the generator, for the augmentation and for mixing real and generated pictures."""
    rows = len(round.batch["label"])
    return {
        "image": round.batch["image"],
        "label": round.batch["label"],
        "noise": round.noise.normal(rows, math.prod(round.models["model"].latent)),
        "chance": round.noise.uniform(rows, 2 * AUGMENTATION + 1),
    }


# -- the games --------------------------------------------------------------------------------------------------------


class NonSaturating(AdversarialConfig):
    """The non-saturating game with an R1 penalty."""

    kind: Literal["non-saturating"] = "non-saturating"
    r1: float = Field(0.1, ge=0, description="weight of the penalty")
    every: int = Field(4, ge=1, description="rounds between penalties, on average")

    def build(self) -> Objective:
        return non_saturating(self.r1, self.every, self.augment)


def non_saturating(r1: float, every: int, augment: tuple[str, ...]) -> Objective:
    """softplus(D(G(z))) + softplus(-D(x)); softplus(-D(G(z))); R1 on real pictures."""
    return game(
        scored(augment, lambda real, fake: F.softplus(fake) + F.softplus(-real)),
        generated(augment, lambda fake: F.softplus(-fake)),
        partial(real_slope, r1 * every, augment) if r1 else None,
        every,
        1,
    )


class Hinge(AdversarialConfig):
    """The hinge game with an R1 penalty."""

    kind: Literal["hinge"] = "hinge"
    r1: float = Field(0.1, ge=0, description="weight of the penalty")
    every: int = Field(4, ge=1, description="rounds between penalties, on average")

    def build(self) -> Objective:
        return hinge(self.r1, self.every, self.augment)


def hinge(r1: float, every: int, augment: tuple[str, ...]) -> Objective:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))); -D(G(z)) (Lim and Ye, 2017); R1 on real pictures."""
    return game(
        scored(augment, lambda real, fake: F.relu(1 - real) + F.relu(1 + fake)),
        generated(augment, lambda fake: -fake),
        partial(real_slope, r1 * every, augment) if r1 else None,
        every,
        1,
    )


class Wasserstein(AdversarialConfig):
    """The Wasserstein game with a gradient penalty."""

    kind: Literal["wasserstein"] = "wasserstein"
    penalty: float = Field(10.0, gt=0, description="weight of the gradient penalty")
    critic_steps: int = Field(5, ge=1, description="critic turns a round")

    def build(self) -> Objective:
        return wasserstein(self.penalty, self.critic_steps, self.augment)


def wasserstein(penalty: float, critic_steps: int, augment: tuple[str, ...]) -> Objective:
    """D(G(z)) - D(x) + penalty (|grad D| - 1)^2 between the two; -D(G(z)) (Gulrajani and others, 2017)."""
    plain = scored(augment, lambda real, fake: fake - real)

    def critic_loss(models: Models, batch: Batch) -> Loss:
        loss = plain(models, batch)
        return Loss({"rows": loss.sums["rows"] + penalty * mixed_slope(models, batch, augment)}, loss.metrics)

    return game(critic_loss, generated(augment, lambda fake: -fake), None, 1, critic_steps)


def scored(augment: tuple[str, ...], loss: Callable[[Tensor, Tensor], Tensor]) -> LossFunction:
    """A critic's loss from its scores of real and of generated pictures."""

    def critic_loss(models: Models, batch: Batch) -> Loss:
        real, fake = both(models, batch, augment)
        real_B, fake_B = models["critic"](real, batch["label"]), models["critic"](fake, batch["label"])
        rows = real_B.new_tensor(len(real_B))
        told = {"right": (((real_B > 0).float() + (fake_B < 0).float()).sum() / 2, rows)}
        return Loss({"rows": loss(real_B, fake_B).sum()}, told)

    return critic_loss


def generated(augment: tuple[str, ...], loss: Callable[[Tensor], Tensor]) -> LossFunction:
    """A generator's loss from the critic's scores of its pictures."""

    def generator_loss(models: Models, batch: Batch) -> Loss:
        picture = models["model"](batch["noise"], batch["label"])
        fake = augmented(picture, batch["chance"][:, :AUGMENTATION], augment)
        return Loss({"rows": loss(models["critic"](fake, batch["label"])).sum()})

    return generator_loss


def both(models: Models, batch: Batch, augment: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Real and generated pictures as a critic sees them, the generator's without gradient."""
    with torch.no_grad():
        fake = models["model"](batch["noise"], batch["label"])
    first, second = batch["chance"][:, : 2 * AUGMENTATION].chunk(2, 1)
    return augmented(batch["image"], second, augment), augmented(fake, first, augment)


def real_slope(weight: float, augment: tuple[str, ...], models: Models, batch: Batch) -> Loss:
    """R1: weight / 2 |grad_x D(x)|^2 at real pictures (Mescheder and others, 2018)."""
    real = augmented(batch["image"], batch["chance"][:, :AUGMENTATION], augment).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(models["critic"](real, batch["label"]).sum(), real, create_graph=True)
    total = slope.square().sum()
    return Loss({"rows": weight / 2 * total}, {"slope": (total.detach(), total.new_tensor(len(real)))})


def mixed_slope(models: Models, batch: Batch, augment: tuple[str, ...]) -> Tensor:
    """sum of (|grad D| - 1)^2 at points between real and generated pictures."""
    real, fake = both(models, batch, augment)
    part = batch["chance"][:, -1].view(-1, 1, 1, 1)
    middle = torch.lerp(real, fake, part).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(models["critic"](middle, batch["label"]).sum(), middle, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().sum()


# -- augmentation that gradients pass through -------------------------------------------------------------------------


def augmented(x_BCHW: Tensor, chance_B6: Tensor, names: tuple[str, ...]) -> Tensor:
    """DiffAugment (Zhao and others, 2020): the same kinds of change for real and generated pictures, one draw a row."""
    for name in names:
        x_BCHW = AUGMENTATIONS[name](x_BCHW, chance_B6)
    return x_BCHW


def colour(x_BCHW: Tensor, chance_B6: Tensor) -> Tensor:
    """Brightness up or down by at most a quarter, contrast and saturation between half and three halves."""
    bright, contrast, saturation = (chance_B6[:, i].view(-1, 1, 1, 1) for i in range(3))
    x_BCHW = x_BCHW + (bright - 0.5) / 2
    grey = x_BCHW.mean(1, keepdim=True)
    x_BCHW = grey + (x_BCHW - grey) * (saturation + 0.5)
    mean = x_BCHW.mean((1, 2, 3), keepdim=True)
    return mean + (x_BCHW - mean) * (contrast + 0.5)


def shift(x_BCHW: Tensor, chance_B6: Tensor) -> Tensor:
    """Moved by up to an eighth of each side; what comes in is the darkest value."""
    height, width = x_BCHW.shape[2:]
    room = (max(1, height // 8), max(1, width // 8))
    down = (chance_B6[:, 3] * (2 * room[0] + 1)).long()
    right = (chance_B6[:, 4] * (2 * room[1] + 1)).long()
    padded = F.pad(x_BCHW, (room[1], room[1], room[0], room[0]), value=-1.0)
    rows = (down[:, None] + torch.arange(height, device=down.device)).view(-1, 1, height, 1)
    columns = (right[:, None] + torch.arange(width, device=right.device)).view(-1, 1, 1, width)
    taken = padded.gather(2, rows.expand(-1, x_BCHW.shape[1], -1, padded.shape[3]))
    return taken.gather(3, columns.expand(-1, x_BCHW.shape[1], height, -1))


def cutout(x_BCHW: Tensor, chance_B6: Tensor) -> Tensor:
    """A square of half the side set to grey."""
    height, width = x_BCHW.shape[2:]
    rows, columns = torch.arange(height, device=x_BCHW.device), torch.arange(width, device=x_BCHW.device)
    down = (chance_B6[:, 3, None] * height).floor()
    inside = ((rows - down).abs() <= height // 4).float()[:, None, :, None]
    right = (chance_B6[:, 5, None] * width).floor()
    across = ((columns - right).abs() <= width // 4).float()[:, None, None, :]
    return x_BCHW * (1 - inside * across)


AUGMENTATIONS = {function.__name__: function for function in (colour, shift, cutout)}
