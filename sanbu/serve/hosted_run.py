"""A run as it is served: its name, its lane, and how to ask it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sanbu.codecs.chat import ChatCodec, Message
from sanbu.codecs.tokenizer import encode
from sanbu.config import SanbuError, override
from sanbu.models.tokens.transformer import Decoder
from sanbu.run import Run
from sanbu.serve.engine import Engine
from sanbu.serve.grammar import Grammars
from sanbu.serve.single_lane import Solo
from sanbu.serve.weights.int8 import quantized
from sanbu.serve.weights.packed import halved, packed
from sanbu.space import Batch
from sanbu.strategies.autoregressive import Autoregressive

Weights = Literal["full", "bfloat16", "int8"]  # of a text run's linear layers


class Served:
    """One run. Text of its own strategy shares the steps of `engine`; whatever else is drawn waits in `solo`."""

    def __init__(self, name: str, run: Run, solo: Solo, **limits: int) -> None:
        self.name, self.run, self.solo = name, run, solo
        self.created = int((run.folder / "recipe.json").stat().st_mtime)
        family = run.recipe.model.family
        if family == "scorer":
            raise SanbuError(f"{run.folder} draws nothing: its model scores; serve the run it belongs to")
        self.writes = family == "tokens"
        self.engine: Engine | None = None
        if self.writes and isinstance(run.model, Decoder):
            self.engine = Engine(run.model, run.recipe.data.space().end, **limits)

    @classmethod
    def open(cls, folder: Path, name: str, solo: Solo, weights: Weights = "full", **limits: int) -> Served:
        """A run folder, on the best device there is, its weights as they are wanted."""
        run = Run.open(folder).to("auto")
        if run.recipe.model.family == "tokens" and isinstance(run.model, Decoder):
            lighten(run.model, weights)
        return cls(name, run, solo, **limits)

    @property
    def context(self) -> int:
        """The longest sequence of its model."""
        return int(getattr(self.run.model, "context", 0))

    @cached_property
    def grammars(self) -> Grammars:
        """What its answers can be held to."""
        space = self.run.recipe.data.space()
        return Grammars(self.run.codec.tokenizer, space.vocabulary, space.end)  # type: ignore[attr-defined]

    def changes(self, strategy: dict[str, Any]) -> tuple[str, ...]:
        """Overrides that turn the run's strategy into the one asked for. Raises SanbuError for what is unknown."""
        kind = strategy.get("kind")
        fields = [f"strategy.{key}={json.dumps(value)}" for key, value in strategy.items() if key != "kind"]
        overrides = (*([f"strategy={kind}"] if kind else []), *fields)
        override(self.run.recipe, overrides)
        return overrides

    def autoregressive(self, changes: tuple[str, ...] = ()) -> Autoregressive:
        """How a run draws token by token: its own way, where that is one."""
        mine = override(self.run.recipe, changes).strategy
        return mine if isinstance(mine, Autoregressive) else Autoregressive()

    def ask(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation; a run of plain text goes on from the words of people alone."""
        codec: Any = self.run.codec
        if isinstance(codec, ChatCodec):
            return codec.begin(list(messages))
        words = [message["content"] for message in messages if message["role"] != "system"]
        return codec.begin("\n".join(words) + "\n")

    def begin(self, prompt: str | Sequence[int]) -> list[int]:
        """The ids of a text to go on from; a list of ids is one already."""
        if not isinstance(prompt, str):
            return list(prompt)
        from sanbu.codecs.text import TextCodec

        return TextCodec.begin(self.run.codec, prompt)  # type: ignore[arg-type]  # not as a question, even of a run that answers

    def spell(self, text: str) -> list[int]:
        """The ids of a text alone."""
        return encode(self.run.codec.tokenizer, text)  # type: ignore[attr-defined]

    def condition(self, prompts: Sequence[Sequence[int]]) -> Batch:
        """What a strategy begins from: rows of ids."""
        from sanbu.data.chat import padded

        return {
            "tokens": padded([list(ids) for ids in prompts], 0),
            "length": torch.tensor([len(ids) for ids in prompts]),
        }

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
