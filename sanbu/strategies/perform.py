"""Perform: the mel of a score. Where none is given, a language model of notes (`parents.notes`) draws one first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.models.acoustic.acoustic import Control, Spoken
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import Strategy, StrategyConfig


class Perform(StrategyConfig):
    """A score token by token, unless one is given, then its mel, whole."""

    kind: Literal["perform"] = "perform"
    families: ClassVar[tuple[str, ...]] = ("performer", "performer-flow")
    notes: StrategyConfig = Field(Autoregressive(max_tokens=512), description="how a score is drawn")
    steps: int = Field(8, ge=1, description="steps of Euler [flow-performer]")
    temperature: float = Field(0.7, ge=0, description="deviation of the first noise [flow-performer]")

    def build(self, space: Space) -> Strategy:
        return PerformStrategy(self, space)


@dataclass
class PerformState:
    """tokens [B, S] of scores, negative ones fill up a row; notes: the state in which those of `missing` are drawn."""

    tokens: Tensor
    missing: Tensor
    seeds: Tensor
    done: Tensor
    notes: Any = None
    spoken: Spoken | None = None
    steps: int = 0


class PerformStrategy:
    """A token of the score per step, then the whole mel in one; a draft has no frame before."""

    def __init__(self, config: Perform, space: Space) -> None:
        self.mels = space.mel.mels
        self.notes = config.notes.build(Space((), space.vocabulary, space.end, grammar=space.grammar))
        self.control = Control(steps=config.steps, temperature=config.temperature)

    def begin(self, condition: Batch, seeds: Tensor) -> PerformState:
        """From tokens [B, S] and length [B]; a row of one token has no score yet."""
        if "tokens" not in condition:
            raise SanbuError("the strategy 'perform' plays scores, and none is given")
        tokens, length = condition["tokens"], condition["length"]
        place = torch.arange(tokens.shape[1], device=tokens.device)
        missing = (length <= 1).nonzero()[:, 0]
        state = PerformState(
            torch.where(place < length[:, None], tokens, -1), missing, seeds, torch.zeros_like(seeds, dtype=torch.bool)
        )
        if len(missing):
            first = {"tokens": tokens[missing, :1], "length": length[missing]}
            state.notes = self.notes.begin(first, seeds[missing])
        return state

    def advance(self, models: Models, state: PerformState) -> PerformState:
        """Draw a token of the scores that are not there yet, or play all of them."""
        state.steps += 1
        if state.notes is not None and not bool(state.notes.done.all()):
            if "notes" not in models:
                raise SanbuError("there is no score to play: give one, or parents.notes=RUN, a run of the recipe notes")
            state.notes = self.notes.advance({"model": models["notes"]}, state.notes)
            return state
        if state.notes is not None:
            state.tokens = self.together(state)
        state.spoken = models["model"].play(state.tokens, self.control, state.seeds)
        state.done = torch.ones_like(state.done)
        return state

    def together(self, state: PerformState) -> Tensor:
        """The given scores and the drawn ones."""
        draft = self.notes.draft(state.notes)
        drawn = torch.where(draft.committed, draft.sample, -1)
        rows, width = len(state.tokens), max(drawn.shape[1], state.tokens.shape[1])
        whole = state.tokens.new_full((rows, width), -1)
        whole[:, : state.tokens.shape[1]] = state.tokens
        whole[state.missing, : drawn.shape[1]] = drawn
        return whole

    def draft(self, state: PerformState) -> Draft:
        """The mel [B, T, mels]. In the record: `frames` [B], `finished` [B] and, once it is played, `score` [B, S]."""
        rows = len(state.seeds)
        evaluations = torch.full_like(state.seeds, state.steps)
        if state.spoken is None:
            empty = torch.zeros(rows, 0, self.mels, device=state.seeds.device)
            record = {"frames": torch.zeros_like(state.seeds), "finished": ~state.done}
            return Draft(empty, empty[:, :, 0].bool(), state.done, evaluations, "mel", record)
        mel_BTM, frames = state.spoken.mel.transpose(1, 2), state.spoken.frames
        known_BT = torch.arange(mel_BTM.shape[1], device=frames.device) < frames[:, None]
        record = {"frames": frames, "finished": state.spoken.finished, "score": state.tokens}
        return Draft(mel_BTM, known_BT, state.done, evaluations, "mel", record)
