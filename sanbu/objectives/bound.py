"""Bounds of the likelihood for models with a latent z.

ELBO: log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)) (Kingma and Welling, 2014).
IWAE: log p(x) >= E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), tighter with every K (Burda and others, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from sanbu.noise import Noise
from sanbu.objectives.likelihood import count_levels, readings
from sanbu.objectives.objective import Batch, Loss, Models, Objective


def elbo(weight: float) -> Objective:
    """The evidence bound with the KL in closed form, times `weight` (Higgins and others, 2017)."""

    def loss(models: Models, batch: Batch) -> Loss:
        seen_BK, _, kl_BK = parts(models, batch)
        nats = (kl_BK - seen_BK).sum()
        metrics = readings(nats, batch) | {"kl": (kl_BK.detach().sum(), batch["label"].new_tensor(len(seen_BK)))}
        return Loss({"likelihood": (weight * kl_BK - seen_BK).sum()}, metrics)

    return Objective(loss, count_levels, experience=drawing(1))


def importance_weighted(draws: int) -> Objective:
    """The bound from `draws` latents a row."""

    def loss(models: Models, batch: Batch) -> Loss:
        seen_BK, ratio_BK, _ = parts(models, batch)
        nats = -((seen_BK - ratio_BK).logsumexp(1) - math.log(draws)).sum()
        return Loss({"likelihood": nats}, readings(nats, batch))

    return Objective(loss, count_levels, experience=drawing(draws))


def drawing(draws: int) -> Callable[[Models, Batch, Noise], Batch]:
    """Adds the noise of so many latents to a batch."""

    def experience(models: Models, batch: Batch, noise: Noise) -> Batch:
        size = math.prod(models["model"].latent)
        return {name: batch[name] for name in ("levels", "label")} | {
            "noise": noise.normal(len(batch["label"]), draws, size)
        }

    return experience


def parts(models: Models, batch: Batch) -> tuple[Tensor, ...]:
    """log p(x|z), log q(z|x) - log p(z), KL, [B, K] each."""
    return models["model"](batch["levels"], batch["label"], batch["noise"]).unbind(2)
