"""Vocoding: a wave of a given mel, whole or some frames at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.models.vocoders.vocoder import Stream
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class VocodingState:
    """mel: what the wave is made of. wave: the samples so far [B, n]. read: frames that were given to the model."""

    mel: Tensor
    frames: Tensor
    seeds: Tensor
    wave: Tensor
    done: Tensor
    read: int = 0
    steps: int = 0
    stream: Stream | None = None


class Vocoding(StrategyConfig):
    """The wave of a mel, in one call or in pieces."""

    kind: Literal["vocoding"] = "vocoding"
    families: ClassVar[tuple[str, ...]] = ("vocoder", "wave-density")
    chunk: int = Field(0, ge=0, description="frames per step, for streams; 0: all at once; the sound is the same")

    def build(self, space: Space) -> Strategy:
        return VocodingStrategy(self, space.mel.hop)


class VocodingStrategy:
    """wave = model.draw(mel), or the pieces of model.stream."""

    def __init__(self, config: Vocoding, hop: int) -> None:
        self.config, self.hop = config, hop

    def begin(self, condition: Batch, seeds: Tensor) -> VocodingState:
        """From mel [B, mels, F] and frames [B]. Raises SanbuError for a condition without a mel, and where a stream
        is asked for of rows of different lengths."""
        if "mel" not in condition:
            raise SanbuError("the strategy 'vocoding' makes a wave of a mel, and none is given")
        mel = condition["mel"]
        whole = seeds.new_full((len(mel),), mel.shape[2])
        frames = condition.get("frames", whole)
        if self.config.chunk and len(frames.unique()) > 1:
            raise SanbuError("strategy.chunk: sounds of different lengths cannot be streamed together; draw them alone")
        nothing = mel.new_zeros(len(mel), 0)
        return VocodingState(mel, frames, seeds, nothing, torch.zeros_like(seeds, dtype=torch.bool))

    def advance(self, models: Models, state: VocodingState) -> VocodingState:
        """Draw the next piece."""
        model, count = models["model"], state.mel.shape[2]
        steps = state.steps + 1
        if not self.config.chunk:
            wave, done = self.whole(model, state), torch.ones_like(state.done)
            return VocodingState(state.mel, state.frames, state.seeds, wave, done, count, steps)
        stream = state.stream or model.stream(state.seeds)
        until = min(count, state.read + self.config.chunk)
        piece = stream.push(state.mel[:, :, state.read : until], last=until == count)
        wave = torch.cat((state.wave, piece), 1)
        done = state.done | (until == count)
        return VocodingState(state.mel, state.frames, state.seeds, wave, done, until, steps, stream)

    def whole(self, model: Any, state: VocodingState) -> Tensor:
        """All samples; rows of one length are drawn together, so that a row is the same alone."""
        wave = state.mel.new_zeros(len(state.mel), self.hop * state.mel.shape[2])
        for frames in filter(None, state.frames.unique().tolist()):
            rows = state.frames == frames
            drawn = model.draw(state.mel[rows, :, :frames], state.seeds[rows])
            wave[rows, : self.hop * frames] = drawn
        return wave

    def draft(self, state: VocodingState) -> Draft:
        """The whole wave, silent where it is not known; `frames` in the record tells how long each row is."""
        total = self.hop * state.mel.shape[2]
        sample = torch.nn.functional.pad(state.wave, (0, total - state.wave.shape[1]))
        known = torch.arange(total, device=sample.device) < state.wave.shape[1]
        calls = torch.full_like(state.frames, state.steps)
        record = {"frames": state.frames}
        return Draft(sample, known.expand(sample.shape), state.done, calls, record=record)
