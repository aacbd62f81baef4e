"""A run as it is served: its name, its lane, and how to ask it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from sanbu.codecs.chat import ChatCodec, Message
from sanbu.codecs.text import TokenCodec
from sanbu.codecs.tokenizer import encode
from sanbu.config import SanbuError
from sanbu.models.tokens.transformer import Decoder
from sanbu.run import Run
from sanbu.serve.engine import Engine
from sanbu.serve.grammar import Grammars
from sanbu.serve.single_lane import Solo
from sanbu.serve.weights.int8 import quantized
from sanbu.serve.weights.packed import halved, packed

Weights = Literal["full", "bfloat16", "int8"]  # of a text run's linear layers


class Served:
    """One run. Text of its own strategy shares the steps of `engine`; whatever else is drawn waits in `solo`."""

    def __init__(self, name: str, run: Run, solo: Solo, **limits: int) -> None:
        self.name, self.run, self.solo = name, run, solo
        self.created = int((run.folder / "recipe.json").stat().st_mtime)
        if not run.recipe.strategy.draws:
            raise SanbuError(f"{run.folder} draws nothing: its model scores; serve the run it belongs to")
        self.writes = run.codec.medium == "text"
        self.engine: Engine | None = None
        if self.writes and isinstance(run.model, Decoder):
            self.engine = Engine(run.model, run.recipe.data.space().end, **limits)

    @classmethod
    def open(cls, folder: Path, name: str, solo: Solo, weights: Weights = "full", **limits: int) -> Served:
        """A run folder, on the best device there is, its weights as they are wanted."""
        run = Run.open(folder).to("auto")
        if isinstance(run.model, Decoder):
            lighten(run.model, weights)
        return cls(name, run, solo, **limits)

    @property
    def codec(self) -> TokenCodec:
        """The codec of a run that writes text."""
        return cast(TokenCodec, self.run.codec)

    @property
    def context(self) -> int:
        """The longest sequence of its model."""
        return int(getattr(self.run.model, "context", 0))

    @cached_property
    def grammars(self) -> Grammars:
        """What its answers can be held to."""
        space = self.run.recipe.data.space()
        return Grammars(self.codec.tokenizer, space.vocabulary, space.end)

    def ask(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation; a run of plain text goes on from the words of people alone."""
        codec = self.codec
        if isinstance(codec, ChatCodec):
            return codec.begin(list(messages))
        words = [message["content"] for message in messages if message["role"] != "system"]
        return codec.document_ids("\n".join(words) + "\n")

    def begin(self, prompt: str | Sequence[int]) -> list[int]:
        """The ids of a text to go on from; a list of ids is one already."""
        if not isinstance(prompt, str):
            return list(prompt)
        return self.codec.document_ids(prompt)  # not as a question, even of a run that answers

    def spell(self, text: str) -> list[int]:
        """The ids of a text alone."""
        return encode(self.codec.tokenizer, text)

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """The mean of the last layer's states over the tokens, of length one, D."""
        if not 0 < len(ids) <= self.context:
            raise SanbuError(f"the input has {len(ids)} tokens; allowed: 1 to {self.context}")
        tokens = torch.tensor([list(ids)], device=self.run.device)
        hidden = self.run.model(tokens, readout=lambda head, hidden: hidden)[0].float().mean(0)
        return hidden / hidden.norm().clamp(min=1e-12)


def lighten(model: Decoder, weights: Weights) -> None:
    """Change a model's linear layers, in place, into what is wanted."""
    if weights == "int8":
        quantized(model)
    elif weights == "full":
        packed(model)
    elif model.embedding.tokens.weight.device.type == "cpu":
        halved(model)
    else:
        model.bfloat16()
