"""Speak: the mel of a text, one sentence after another, from an acoustic model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.models.acoustic.acoustic import Control, Spoken
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig

SLOWEST, FASTEST = 0.25, 4.0  # rates


class Speak(StrategyConfig):
    """The mel of each sentence, whole."""

    kind: Literal["speak"] = "speak"
    families: ClassVar[tuple[str, ...]] = ("durations", "attention", "speech-flow")
    rate: float = Field(1.0, ge=SLOWEST, le=FASTEST, description="rate of speaking; 0.8 takes 1.25 times as long")
    pitch: float = Field(1.0, ge=0.25, le=4, description="factor of the pitch")
    energy: float = Field(1.0, ge=0.05, le=20, description="factor of the loudness (amplitude)")

    steps: int = Field(8, ge=1, description="steps of Euler [flow-speech]")
    temperature: float = Field(0.7, ge=0, description="deviation of the first noise [flow-speech]")

    def build(self, space: Space) -> Strategy:
        return SpeakStrategy(Control(self.rate, self.pitch, self.energy, self.steps, self.temperature))


@dataclass
class SpeakState:
    """ids [B, P, S] of P sentences, of which `part` were spoken; `spoken` is the last one."""

    ids: Tensor
    voice: Tensor
    seeds: Tensor
    done: Tensor
    finished: Tensor
    part: int = 0
    spoken: Spoken | None = None


class SpeakStrategy:
    """A sentence per step; a draft has the mel of the last sentence alone, [B, T, mels]."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def begin(self, condition: Batch, seeds: Tensor) -> SpeakState:
        """From ids [B, P, S] and voice [B]. Raises SanbuError without a text."""
        if "ids" not in condition:
            raise SanbuError("the strategy 'speak' needs a text, and none is given")
        none = torch.zeros_like(seeds, dtype=torch.bool)
        return SpeakState(condition["ids"], condition["voice"], seeds, none, ~none)

    def advance(self, models: Models, state: SpeakState) -> SpeakState:
        """Speak the next sentence of every row."""
        ids_BS = state.ids[:, state.part]
        ids_BS = ids_BS[:, : max(1, int((ids_BS > 0).sum(1).max()))]
        spoken = models["model"].say(ids_BS, state.voice, self.control, state.seeds + state.part)
        part = state.part + 1
        left = (state.ids[:, part:] > 0).flatten(1).any(1)
        finished = state.finished & spoken.finished
        return SpeakState(state.ids, state.voice, state.seeds, state.done | ~left, finished, part, spoken)

    def draft(self, state: SpeakState) -> Draft:
        """The last sentence. In the record: `frames` [B], `durations` [B, S], `finished` [B] of all so far."""
        assert state.spoken is not None
        mel_BTM = state.spoken.mel.transpose(1, 2)
        frames = state.spoken.frames
        known_BT = torch.arange(mel_BTM.shape[1], device=frames.device) < frames[:, None]
        record = {"frames": frames, "durations": state.spoken.durations, "finished": state.finished}
        evaluations = torch.full_like(frames, state.part)
        return Draft(mel_BTM, known_BT, state.done, evaluations, "mel", record)
