"""Next-code cross-entropy: -sum over steps and codebooks of log p(code | earlier steps), in nats per code.

The codes are those of a trained sound codec (parents.codec), in the delay pattern. Only codes of frames that a row has,
and the end of the row, are counted. Where a run repeats its rows, the codes are computed once.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from sanbu.layers.delays import delayed, taught
from sanbu.models.codes.code_transformer import codec_of
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.space import Batch, Models


class NextCode(ObjectiveConfig):
    """Cross-entropy of the next codes of a sound codec."""

    kind: Literal["next-code"] = "next-code"
    families: ClassVar[tuple[str, ...]] = ("codes",)

    def build(self) -> Objective:
        return next_code()

    def needs(self) -> tuple[str, ...]:
        return ("codec",)


def next_code() -> Objective:
    """Batches have mel and frames; `fixed` gives their codes."""

    def fixed(models: Models, batch: Batch) -> Batch:
        codec = codec_of(models)
        codes_BKF = codec.encode(batch["mel"])
        return {"codes": codes_BKF, "code_frames": -(-batch["frames"] // codec.stride)}

    def experience(round: Round) -> Batch:
        known = round.batch if "codes" in round.batch else fixed(round.models, round.batch)
        return {"codes": known["codes"], "code_frames": known["code_frames"]}

    def loss(models: Models, batch: Batch) -> Loss:
        model = models["model"]
        sequence_BKT = delayed(batch["codes"], batch["code_frames"], model.empty)
        logits = model(model.shifted(sequence_BKT))
        nats_BKT = cross_entropy(logits, sequence_BKT) * taught(sequence_BKT, batch["code_frames"])
        counts_K = taught(sequence_BKT, batch["code_frames"]).sum((0, 2)).float()
        nats_K = nats_BKT.detach().sum((0, 2))
        pairs = enumerate(zip(nats_K, counts_K, strict=True), 1)
        metrics = {f"codebook_{number}": pair for number, pair in pairs}
        return Loss({"codes": nats_BKT.sum()}, metrics)

    def count(batch: Batch) -> dict[str, float]:
        codebooks = batch["codes"].shape[1]
        return {"codes": float((codebooks * batch["code_frames"] + 1).sum())}

    return Objective(loss, count, experience=experience, fixed=fixed, alone=True)


def cross_entropy(logits: Tensor, sequence_BKT: Tensor) -> Tensor:
    """-log p of each code, [B, K, T]."""
    flat = F.cross_entropy(logits.float().flatten(0, 2), sequence_BKT.flatten(), reduction="none")
    return flat.view(sequence_BKT.shape)
