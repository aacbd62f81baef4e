"""In-context learning: -sum log p(target | row so far), and the accuracy by number of examples in the row.

After Garg and others, "What can transformers learn in-context?", 2022.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from sanbu.objectives.next_token import count_targets, cross_entropy
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.space import IGNORED, Batch, Models


class InContext(ObjectiveConfig):
    """Cross-entropy of the target tokens; accuracy after k examples as metrics."""

    kind: Literal["in-context"] = "in-context"
    families: ClassVar[tuple[str, ...]] = ("tokens",)

    def build(self) -> Objective:
        return in_context()


def in_context() -> Objective:
    """Cross-entropy of the target tokens; accuracy_k is the accuracy of the target after k examples."""

    def loss(models: Models, batch: Batch) -> Loss:
        targets = batch["targets"]
        logits_BTV = models["model"](batch["tokens"])
        right = (logits_BTV.argmax(-1) == targets).float()
        taught = (targets != IGNORED).float()
        order = (taught.cumsum(1) - 1).long()
        shots = int(order.max()) + 1 if targets.numel() else 0
        metrics = {}
        for k in range(shots):
            chosen = taught * (order == k)
            metrics[f"accuracy_{k}"] = ((right * chosen).sum(), chosen.sum())
        return Loss({"next_token": cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())}, metrics)

    return Objective(loss, count_targets)
