"""In stages: a first model draws a small description part by part, and a second one turns each part into the sample.

text -> mel -> wave: the acoustic model of the run draws the mel of a sentence, and the run `parents.vocoder` its wave.
score -> mel -> wave: the run `parents.notes` draws a score, and a performer its mel (strategy `perform`).
Without a vocoder Griffin-Lim makes the wave. Nothing is final before the last stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import change
from sanbu.models.vocoders.griffin_lim import GriffinLim
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.speak import Speak
from sanbu.strategies.strategy import Strategy, StrategyConfig
from sanbu.strategies.vocoding import Vocoding

GROWTH = 2  # by which the memory of a sample that is full grows


class InStages(StrategyConfig):
    """The mel by the acoustic model, then the wave by a vocoder."""

    kind: Literal["in-stages"] = "in-stages"
    families: ClassVar[tuple[str, ...]] = ("durations", "attention", "speech-flow", "performer", "performer-flow")
    first: StrategyConfig = Field(Speak(), description="how the first stage is drawn")
    chunk: int = Field(0, ge=0, description="frames per step of the last stage, for streams; 0: a sentence per step")

    def build(self, space: Space) -> Strategy:
        return InStagesStrategy(self.first.build(space), Vocoding(chunk=self.chunk), space)

    def changed(self, fields: Mapping[str, Any]) -> StrategyConfig:
        """Fields of the first stage may be named without it: rate=0.8."""
        own = set(type(self).model_fields)
        of_first = set(type(self.first).model_fields) - own
        first = {name: value for name, value in fields.items() if name in of_first}
        rest = {name: value for name, value in fields.items() if name not in of_first}
        return change(self, {"first": change(self.first, first, "strategy.first"), **rest}, "strategy")


@dataclass
class StagesState:
    """first, last: the states of the two stages. samples [B, N]: memory, of which `known` [B] are drawn."""

    first: Any
    seeds: Tensor
    done: Tensor
    samples: Tensor
    known: Tensor
    draft: Draft | None = None
    last: Any = None
    given: int = 0  # samples of the current part that were taken over
    steps: int = 0


class InStagesStrategy:
    """A part of the first stage, then all of its last stage, then the next part."""

    def __init__(self, first: Strategy, last: Vocoding, space: Space) -> None:
        self.first, self.space, self.chunk = first, space, last.chunk
        self.whole, self.last = Vocoding().build(space), last.build(space)
        self.floor = GriffinLim(space.mel)

    def begin(self, condition: Batch, seeds: Tensor) -> StagesState:
        """As the first stage begins."""
        first = self.first.begin(condition, seeds)
        none = torch.zeros_like(seeds)
        return StagesState(first, seeds, none.bool(), torch.zeros(len(seeds), 0, device=seeds.device), none)

    def advance(self, models: Models, state: StagesState) -> StagesState:
        """Draw the next part of the first stage, or go on with the last stage of this part."""
        state.steps += 1
        if state.last is None:
            state.first = self.first.advance(models, state.first)
            state.draft = draft = self.first.draft(state.first)
            mel = draft.sample.transpose(1, 2)
            if mel.shape[2] == 0:
                state.done = draft.done.clone()
                return state
            frames = draft.record["frames"]
            streamed = self.chunk and len(frames.unique()) == 1
            state.last = (self.last if streamed else self.whole).begin({"mel": mel, "frames": frames}, state.seeds)
            state.given = 0
            return state
        return self.second(models, state)

    def second(self, models: Models, state: StagesState) -> StagesState:
        """A step of the last stage."""
        strategy = self.last if self.chunk and len(state.last.frames.unique()) == 1 else self.whole
        state.last = strategy.advance({"model": models.get("vocoder", self.floor)}, state.last)
        wave, frames = state.last.wave, state.last.frames
        ends = (self.space.mel.hop * frames).clamp(max=wave.shape[1])
        new = wave.shape[1] - state.given
        state.samples = self.grown(state.samples, int(state.known.max()) + new)
        for row, (known, end) in enumerate(zip(state.known.tolist(), ends.tolist(), strict=True)):
            piece = wave[row, state.given : end]
            state.samples[row, known : known + len(piece)] = piece
            state.known[row] += len(piece)
        state.given = wave.shape[1]
        if bool(state.last.done.all()):
            state.last = None
            assert state.draft is not None
            state.done = state.draft.done.clone()
        return state

    @staticmethod
    def committed(known_B: Tensor, longest: int) -> Tensor:
        """Which samples [B, longest] are drawn; a view of one value where every row has all, as a long text alone."""
        if bool((known_B == longest).all()):
            return torch.ones(1, 1, dtype=torch.bool, device=known_B.device).expand(len(known_B), longest)
        return torch.arange(longest, device=known_B.device) < known_B[:, None]

    @staticmethod
    def grown(samples: Tensor, needed: int) -> Tensor:
        """Memory for at least `needed` samples per row."""
        if needed <= samples.shape[1]:
            return samples
        more = max(needed, GROWTH * samples.shape[1]) - samples.shape[1]
        return torch.nn.functional.pad(samples, (0, more))

    def draft(self, state: StagesState) -> Draft:
        """The waves so far; `samples` [B] in the record tells how long each is. After a first stage, its draft too."""
        assert state.draft is not None
        first = state.draft
        at_first = state.last is not None and state.given == 0
        record = {"samples": state.known.clone(), "finished": first.record["finished"]}
        if at_first:
            record |= {**first.record, first.stage: first.sample}
        longest = int(state.known.max())
        sample = state.samples[:, :longest]
        known = self.committed(state.known, longest)
        evaluations = torch.full_like(state.known, state.steps)
        return Draft(sample, known, state.done, evaluations, first.stage if at_first else "wave", record)
