"""Transcribe: the letters of a sound, by the best label of each frame (the best path of CTC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.layers.ctc import BLANK
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig


class Transcribe(StrategyConfig):
    """The best path."""

    kind: Literal["transcribe"] = "transcribe"
    families: ClassVar[tuple[str, ...]] = ("recogniser",)

    def build(self, space: Space) -> Strategy:
        return TranscribeStrategy()


@dataclass
class TranscribeState:
    """ids [B, L] of letters, zeros after a row's last one; empty before the step."""

    mel: Tensor
    frames: Tensor
    ids: Tensor
    done: Tensor


def begin(condition: Batch, seeds: Tensor) -> TranscribeState:
    """The state before a sound is read. Raises SanbuError without a sound."""
    if "mel" not in condition:
        raise SanbuError("a recogniser reads a sound, and none is given")
    nothing = torch.zeros(len(seeds), 0, dtype=torch.long, device=seeds.device)
    return TranscribeState(condition["mel"], condition["frames"], nothing, torch.zeros_like(seeds).bool())


class TranscribeStrategy:
    """One pass through the model."""

    def begin(self, condition: Batch, seeds: Tensor) -> TranscribeState:
        """From mel [B, mels, T] and frames [B]. Seeds are not used. Raises SanbuError without a sound."""
        return begin(condition, seeds)

    def advance(self, models: Models, state: TranscribeState) -> TranscribeState:
        """Read the whole sound: the only step."""
        model = models["model"]
        best_BT = model(state.mel, state.frames).argmax(2)
        ids = best_path(best_BT, model.steps(state.frames))
        return TranscribeState(state.mel, state.frames, ids, torch.ones_like(state.done))

    def draft(self, state: TranscribeState) -> Draft:
        """The letters; all are final once they are there."""
        return Draft(state.ids, state.ids > 0, state.done, state.done.long())


def best_path(best_BT: Tensor, steps_B: Tensor) -> Tensor:
    """Letters [B, L] of the best label of each frame: repeated labels joined, blanks left out, zeros at the end."""
    before_BT = torch.nn.functional.pad(best_BT[:, :-1], (1, 0), value=BLANK)
    real_BT = torch.arange(best_BT.shape[1], device=best_BT.device) < steps_B[:, None]
    kept_BT = (best_BT != BLANK) & (best_BT != before_BT) & real_BT
    rows = [row[keep] for row, keep in zip(best_BT, kept_BT, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
