"""Choose a text: the likeliest of given texts for a sound, argmax over texts of log p(text | sound) by CTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sanbu.codecs.speech.symbols import ids_of
from sanbu.layers.ctc import log_likelihoods
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig
from sanbu.strategies.transcribe import TranscribeState, begin


class ChooseText(StrategyConfig):
    """One of some texts."""

    kind: Literal["choose-text"] = "choose-text"
    families: ClassVar[tuple[str, ...]] = ("recogniser",)
    texts: tuple[str, ...] = Field((), description="the texts to choose from, as in [yes,no]; letters a to z")

    def check(self, space: Space) -> None:
        if not self.texts:
            raise ValueError("strategy.texts: given none, allowed: one or more texts, as in strategy.texts=[yes,no]")
        for text in self.texts:
            if len(ids_of(text.lower())) != len(text) or not text.strip():
                raise ValueError(f"strategy.texts: given {text[:40]!r}, allowed: letters a to z, spaces and marks")

    def build(self, space: Space) -> Strategy:
        texts = [torch.tensor(ids_of(text.lower())) for text in self.texts]
        return ChooseTextStrategy(pad_sequence(texts, batch_first=True))


@dataclass
class ChooseTextStrategy:
    """One pass through the model, and the likelihood of each text [U, L]."""

    texts_UL: Tensor

    def begin(self, condition: Batch, seeds: Tensor) -> TranscribeState:
        """From mel [B, mels, T] and frames [B]. Seeds are not used. Raises SanbuError without a sound."""
        return begin(condition, seeds)

    def advance(self, models: Models, state: TranscribeState) -> TranscribeState:
        """Read the whole sound: the only step."""
        model, texts_UL = models["model"], self.texts_UL.to(state.frames.device)
        likely_BU = log_likelihoods(model(state.mel, state.frames), model.steps(state.frames), texts_UL)
        return TranscribeState(state.mel, state.frames, texts_UL[likely_BU.argmax(1)], torch.ones_like(state.done))

    def draft(self, state: TranscribeState) -> Draft:
        """The letters; all are final once they are there."""
        return Draft(state.ids, state.ids > 0, state.done, state.done.long())
