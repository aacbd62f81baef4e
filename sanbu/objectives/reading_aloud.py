"""Reading aloud with attention (Tacotron 2, 2018): the mel before and after the postnet, the gate, the attention.

mean (|y - mel| + (y - mel)^2 + |y' - mel| + (y' - mel)^2) + mean BCE(gate, last frame) + guide mean a_ts (1 - g_ts)

Attention costs where g is small, so that it is found early. Where the corpus has the times of symbols, s(t) is the
symbol that is spoken at t and g_ts = exp(-(s - s(t))^2 / 2 reach^2) (Zhu and others, "Pre-alignment guided attention",
2019); elsewhere g_ts = exp(-(t / T - s / S)^2 / 2 sigma^2), near the diagonal (Tachibana and others, "Guided
attention", 2018). Means are over real frames alone, where the original averaged over padding too.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.layers.alignment import symbols_at
from sanbu.models.acoustic.acoustic import SPREAD, inside
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import Batch, Models


class ReadingAloud(ObjectiveConfig):
    """Mel, gate and guided attention."""

    families: ClassVar[tuple[str, ...]] = ("attention",)
    kind: Literal["reading-aloud"] = "reading-aloud"
    guide: float = Field(5.0, ge=0, description="weight of the guided attention")
    reach: float = Field(1.0, gt=0, description="width of the guide in symbols, where the corpus has their times")
    sigma: float = Field(0.2, gt=0, description="width of the diagonal as a fraction of the length, where it has none")
    stop_weight: float = Field(10.0, gt=0, description="weight of the steps where a row ends")

    def build(self) -> Objective:
        return Objective(self.loss, count)

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sums over frames and steps of the decoder."""
        model = models["model"]
        made = model(batch["ids"], batch["voice"], batch["mel"], batch["frames"])
        real_BT = inside(batch["frames"], batch["mel"].shape[2])
        gaps = [(mel - batch["mel"]) / SPREAD for mel in (made.before, made.mel)]
        frames = sum(((gap.abs() + gap.square()).mean(1) * real_BT).sum() for gap in gaps)
        reduction = model.config.reduction
        steps_B = (batch["frames"] + reduction - 1) // reduction
        real_BK = inside(steps_B, made.gate.shape[1])
        last_BK = torch.arange(made.gate.shape[1], device=steps_B.device) >= (steps_B - 1)[:, None]
        weight_BK = torch.where(last_BK, self.stop_weight, 1.0) * real_BK
        gate = F.binary_cross_entropy_with_logits(made.gate, last_BK.float(), weight_BK, reduction="sum")
        if "durations" in batch:
            far_BKS = 1 - near_spoken(batch["durations"], made.alignment.shape[1], reduction, self.reach)
        else:
            far_BKS = 1 - diagonal(steps_B, batch["symbols"], made.alignment.shape[1:], self.sigma)
        apart = (made.alignment * far_BKS * real_BK[..., None]).sum() * reduction
        focus = (made.alignment.amax(2) * real_BK).sum()
        mel = (gaps[1].abs().mean(1) * real_BT).sum() * SPREAD
        metrics = {
            "mel_l1": (mel.detach(), batch["frames"].sum()),
            "focus": (focus.detach(), real_BK.sum()),  # mean largest weight of a step
        }
        return Loss({"frames": frames + gate * reduction + self.guide * apart}, metrics)


def count(batch: Batch) -> dict[str, float]:
    """The number of real frames."""
    return {"frames": float(batch["frames"].sum())}


def near_spoken(durations_BS: Tensor, steps: int, reduction: int, reach: float) -> Tensor:
    """g [B, K, S]: 1 at the symbol that is spoken in the middle of each step, less beside it."""
    place_K = torch.arange(steps, device=durations_BS.device)
    middle_BK = torch.minimum(place_K * reduction + reduction // 2, durations_BS.sum(1, keepdim=True) - 1)
    place_S = torch.arange(durations_BS.shape[1], device=durations_BS.device)
    apart_BKS = symbols_at(durations_BS, middle_BK)[..., None] - place_S
    return torch.exp(-apart_BKS.square() / (2 * reach**2))


def diagonal(steps_B: Tensor, symbols_B: Tensor, shape: torch.Size, sigma: float) -> Tensor:
    """g [B, K, S]: 1 on the diagonal of each row, less beside it."""
    K, S = shape
    t_BK = torch.arange(K, device=steps_B.device) / steps_B[:, None]
    s_BS = torch.arange(S, device=steps_B.device) / symbols_B[:, None]
    apart_BKS = t_BK[:, :, None] - s_BS[:, None]
    return torch.exp(-apart_BKS.square() / (2 * sigma**2))
