"""Lower bounds of the likelihood for models with a latent z.

ELBO: log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)) (Kingma and Welling, 2014).
IWAE: log p(x) >= E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), tighter for larger K (Burda and others, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sanbu.objectives.likelihood import count_levels, likelihood_metrics
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.space import Batch, Models


class Elbo(ObjectiveConfig):
    """The evidence lower bound (ELBO) of a latent variable model."""

    kind: Literal["elbo"] = "elbo"
    families: ClassVar[tuple[str, ...]] = ("latent",)
    weight: float = Field(1.0, gt=0, description="weight of the KL term (beta); 1 gives the bound")

    def build(self) -> Objective:
        return elbo(self.weight)


def elbo(weight: float) -> Objective:
    """The ELBO with the KL term in closed form, multiplied by `weight` (beta-VAE: Higgins and others, 2017)."""

    def loss(models: Models, batch: Batch) -> Loss:
        seen_BK, _, kl_BK = parts(models, batch)
        nats = (kl_BK - seen_BK).sum()
        rows = batch["label"].new_tensor(len(seen_BK))
        metrics = likelihood_metrics(nats, batch) | {"kl": (kl_BK.detach().sum(), rows)}
        return Loss({"likelihood": (weight * kl_BK - seen_BK).sum()}, metrics)

    return Objective(loss, count_levels, experience=draw_latents(1), alone=True)


class ImportanceWeighted(ObjectiveConfig):
    """The importance-weighted bound (IWAE), tighter with more latents."""

    kind: Literal["importance-weighted"] = "importance-weighted"
    families: ClassVar[tuple[str, ...]] = ("latent",)
    draws: int = Field(16, ge=1, description="latents per row")

    def build(self) -> Objective:
        return importance_weighted(self.draws)


def importance_weighted(draws: int) -> Objective:
    """The bound from `draws` latents per row."""

    def loss(models: Models, batch: Batch) -> Loss:
        seen_BK, ratio_BK, _ = parts(models, batch)
        nats = -((seen_BK - ratio_BK).logsumexp(1) - math.log(draws)).sum()
        return Loss({"likelihood": nats}, likelihood_metrics(nats, batch))

    return Objective(loss, count_levels, experience=draw_latents(draws), alone=True)


def draw_latents(draws: int) -> Callable[[Round], Batch]:
    """An experience that adds the noise of `draws` latents per row."""

    def experience(round: Round) -> Batch:
        levels, label = round.batch["levels"], round.batch["label"]
        noise = round.noise.normal(len(label), draws, math.prod(round.models["model"].latent))
        return {"levels": levels, "label": label, "noise": noise}

    return experience


def parts(models: Models, batch: Batch) -> tuple[Tensor, ...]:
    """log p(x|z), log q(z|x) - log p(z), KL, [B, K] each."""
    return models["model"](batch["levels"], batch["label"], batch["noise"]).unbind(2)
