"""Coding: the distance of a decoded sound from the true one, and of the encoder's vectors from their codes.

loss(sound decoded from codes) + commitment * mean |z - codes|^2

The first term is that of another objective (`of`): distances between spectra, or the game with critics. Before each
round codebooks that learn by averages move toward the vectors of its rows, and some rows are given fewer codebooks, the
first ones, so that these work alone (van den Oord and others, 2017; Zeghidour and others, "SoundStream", 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.layers.quantizers.quantizer import Quantized, occurrences, use_of
from sanbu.objectives.objective import Loss, LossFunction, Metrics, Objective, ObjectiveConfig, Round, Turn
from sanbu.objectives.spectral import Spectral
from sanbu.space import Batch, Models

DEPTHS = "depths"  # in a batch: how many codebooks each row uses


class Coding(ObjectiveConfig):
    """A sound by way of codes: the loss of another objective, commitment, codebooks that follow."""

    kind: Literal["coding"] = "coding"
    families: ClassVar[tuple[str, ...]] = ("vocoder",)
    of: ObjectiveConfig = Field(Spectral(), description="the distance of the sound: spectral or wave-game")
    commitment: float = Field(0.05, ge=0, description="weight of the distance of vectors from their codes")
    dropout: float = Field(0.5, ge=0, le=1, description="share of rows that use a random number of codebooks, of rvq")

    def build(self) -> Objective:
        return coding(self, self.of.build())


def coding(config: Coding, sound: Objective) -> Objective:
    """The objective of the sound, with what codes need around it."""

    def experience(round: Round) -> Batch:
        batch, model = sound.experience(round), coder(round.models)
        if not round.learning:
            return batch
        quantizer, rows = model.quantizer, len(batch["mel"])
        quantizer.follow(model.latent(batch["mel"]), round.noise)
        if not quantizer.nested:
            return batch
        random_B = 1 + round.noise.integers(quantizer.codebooks, rows)
        fewer_B = round.noise.uniform(rows) < config.dropout
        return {**batch, DEPTHS: torch.where(fewer_B, random_B, quantizer.codebooks)}

    def around(loss: LossFunction) -> LossFunction:
        def whole(models: Models, batch: Batch) -> Loss:
            codec = Listening(coder(models), batch.get(DEPTHS))
            found = loss({**models, "model": codec}, batch)
            quantized = codec.quantized
            assert quantized is not None, "the objective of the sound did not call the model"
            total = found.sums["rows"] + config.commitment * quantized.commitment.sum()
            return Loss({**found.sums, "rows": total}, {**found.metrics, **use(quantized, codec.codes)})

        return whole

    def turns(round: Round) -> Iterator[Turn]:
        for turn in sound.draw_turns(round):
            yield replace(turn, loss=around(turn.loss)) if turn.player == "model" else turn

    return replace(sound, loss=around(sound.loss), experience=experience, turns=turns)


def coder(models: Models) -> Any:
    """The sound codec that is trained. Raises SanbuError for a vocoder without codes."""
    model = models["model"]
    if not hasattr(model, "quantizer"):
        raise SanbuError(
            "objective: 'coding' trains sound codecs, and this model has no codes; set model=magnitude-codec"
        )
    return model


class Listening:
    """A codec for one call of an objective; keeps what its quantizer said."""

    def __init__(self, model: Any, depths_B: Tensor | None) -> None:
        self.model, self.mel, self.codes, self.depths = model, model.mel, model.quantizer.codes, depths_B
        self.quantized: Quantized | None = None
        if hasattr(model, "magnitudes"):
            self.magnitudes = self.made

    def __call__(self, mel: Tensor) -> Tensor:
        return self.made(mel)

    def made(self, mel: Tensor) -> Tensor:
        """The wave, or the magnitudes of a codec that says magnitudes."""
        found = self.model.coded(mel, self.depths)
        self.quantized = found.quantized
        return found.made


def use(quantized: Quantized, size: int) -> Metrics:
    """Metrics of a batch, means over its rows: distance from the codes, share of codes used, perplexity."""
    rows = quantized.commitment.new_tensor(float(len(quantized.commitment)))
    shares_K, perplexities_K = use_of(occurrences(quantized.codes, size))
    return {
        "commitment": (quantized.commitment.detach().sum(), rows),
        "codes_used": (rows * shares_K.mean(), rows),
        "code_perplexity": (rows * perplexities_K.mean(), rows),
    }
