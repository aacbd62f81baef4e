"""In-context learning: cross-entropy of the target tokens, and accuracy by number of examples in the prompt."""

from __future__ import annotations

from typing import ClassVar, Literal

from sanbu.objectives.next_token import count_targets, cross_entropy
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import IGNORED, Batch, Models


class InContext(ObjectiveConfig):
    """Cross-entropy of what is taught, with the accuracy after so many examples."""

    kind: Literal["in-context"] = "in-context"
    families: ClassVar[tuple[str, ...]] = ("tokens",)

    def build(self) -> Objective:
        return in_context()


def in_context() -> Objective:
    """Cross-entropy of the taught tokens; accuracy_k is that of the one after k examples."""

    def loss(models: Models, batch: Batch) -> Loss:
        targets = batch["targets"]
        logits_BTV = models["model"](batch["tokens"])
        right = (logits_BTV.argmax(-1) == targets).float()
        taught = (targets != IGNORED).float()
        order = (taught.cumsum(1) - 1).long()
        shots = int(order.max()) + 1 if targets.numel() else 0
        metrics = {
            f"accuracy_{k}": ((right * taught * (order == k)).sum(), (taught * (order == k)).sum())
            for k in range(shots)
        }
        return Loss({"next_token": cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())}, metrics)

    return Objective(loss, count_targets)
