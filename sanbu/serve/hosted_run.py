"""A served run: its name, its engine, and its tokenization of requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import cast

import torch
from torch import Tensor

from sanbu.codecs.chat import ChatCodec, Message
from sanbu.codecs.text import TokenCodec
from sanbu.codecs.tokenizer import encode
from sanbu.config import SanbuError, dump
from sanbu.files import read_json
from sanbu.machine import find_device
from sanbu.memory.check import FLOAT, check_weights, headers
from sanbu.memory.cost import cost
from sanbu.memory.limits import room
from sanbu.models.tokens.transformer import Decoder
from sanbu.run import Run
from sanbu.serve.engine import Engine
from sanbu.serve.errors import APIError
from sanbu.serve.grammar import Grammars
from sanbu.serve.single_lane import SingleLane
from sanbu.serve.team import Team
from sanbu.serve.weights.convert import Weights, convert

BLOCK = 16  # tokens of a KV-cache block, as in Engine


class PromptTooLong(APIError):
    """A prompt that does not fit into the context, of which `answer` tokens are for the answer.

    Clients recognise it by its code, or by the words of OpenAI's message.
    """

    def __init__(self, given: str, context: int, param: str, answer: int = 1) -> None:
        line = f"{given}; allowed: 1 to {context - answer}; this model's maximum context length is {context} tokens"
        super().__init__(400, line, param, "context_length_exceeded")


class HostedRun:
    """A served run. `engine` batches autoregressive sampling; `single_lane` runs everything else, one job at a time."""

    def __init__(self, name: str, run: Run, single_lane: SingleLane, **limits: int) -> None:
        self.name, self.run, self.single_lane = name, run, single_lane
        self.created = int((run.folder / "recipe.json").stat().st_mtime)
        if not run.recipe.strategy.draws:
            raise SanbuError(
                f"{run.folder} holds a scoring model, which cannot generate; serve a run that generates text or images"
            )
        self.weights: Weights = "full"
        self.divided = False  # over several processes
        self.making, self.made = Lock(), cast("Grammars | None", None)
        self.medium = run.codec.medium
        self.writes = self.medium == "text" and not hasattr(run.codec, "sound")
        self.engine: Engine | None = None
        if self.writes and isinstance(run.model, Decoder):
            space = run.recipe.data.space()
            self.engine = Engine(run.model, space.end, other_ends=space.other_ends, **limits)

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        single_lane: SingleLane,
        weights: Weights = "full",
        team: Team | None = None,
        **limits: int,
    ) -> HostedRun:
        """Open a run folder on the best available device, with its linear layers in the given format.

        team: processes that compute its model together.
        """
        run = Run.open(folder)
        check_cache(run, limits.get("blocks", 0))
        divided = team is not None and team.divided
        if team is not None and divided:
            team.cut(run)
            run.device = find_device("auto")  # its parents are not loaded: autoregressive sampling does not call them
            run.model.to(run.device)
        else:
            run = run.to("auto")
        convert(run.model, weights)
        made = cls(name, run, single_lane, **limits)
        made.weights, made.divided = weights, divided
        if team is not None and divided and made.engine is not None:
            team.join(made.engine.model, made.engine.cache)
        return made

    @cached_property
    def fingerprint(self) -> str:
        """A short name of the weights and of how they are stored; it changes when the answers may."""
        try:
            known = read_json(self.run.folder / "finished.json")["weights"]
        except (SanbuError, OSError, KeyError, TypeError):  # a run of an older format
            state = (self.run.folder / "model.safetensors").stat()
            known = [state.st_mtime_ns, state.st_size]
        text = json.dumps([known, self.weights, dump(self.run.recipe)], sort_keys=True, default=str)
        return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def codec(self) -> TokenCodec:
        """The codec of a run that writes text."""
        return cast(TokenCodec, self.run.codec)

    @property
    def context(self) -> int:
        """Context length of the model, in tokens."""
        return int(getattr(self.run.model, "context", 0))

    @property
    def grammars(self) -> Grammars:
        """Grammars for constrained decoding with this run's tokenizer, made once."""
        with self.making:
            if self.made is None:
                space = self.run.recipe.data.space()
                self.made = Grammars(self.codec.tokenizer, space.vocabulary, space.end)
            return self.made

    @cached_property
    def longest(self) -> int:
        """The most bytes of a prompt that can fit into the context: longer ones are refused before they are read."""
        return self.context * max(16, *map(len, self.codec.tokenizer.pieces))

    def check_length(self, texts: Iterable[str], param: str) -> None:
        """Raise PromptTooLong for texts that cannot fit into the context, however they are split into tokens."""
        length = sum(map(len, texts))  # characters have at least one byte
        if self.context and length > self.longest:
            raise PromptTooLong(f"the prompt has {length:,} characters, which cannot fit", self.context, param)

    def check_prompt(self, prompt: Sequence[int], param: str) -> None:
        """Raise APIError for a prompt that is empty, or leaves no place for an answer."""
        if len(prompt) >= self.context:
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens", self.context, param)
        if not prompt:
            raise APIError(400, f"the prompt has 0 tokens; allowed: 1 to {self.context - 1}", param)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation; a base model, without a chat template, gets the non-system messages as text."""
        self.check_length((message["content"] for message in messages), "messages")
        codec = self.codec
        if isinstance(codec, ChatCodec):
            return codec.begin(list(messages))
        words = [message["content"] for message in messages if message["role"] != "system"]
        return codec.document_ids("\n".join(words) + "\n")

    def encode_prompt(self, prompt: str | Sequence[int], param: str = "prompt") -> list[int]:
        """Token ids of a prompt to continue; a list of ids is returned as given."""
        if not isinstance(prompt, str):
            return list(prompt)
        self.check_length([prompt], param)
        return self.codec.document_ids(prompt)  # without the chat template, also for chat models

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        self.check_length([text], "prediction")
        return encode(self.codec.tokenizer, text)

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """The mean over tokens of the last hidden states, normalised to length 1, D. Raises SanbuError."""
        if not 0 < len(ids) <= self.context:
            raise SanbuError(f"the input has {len(ids)} tokens; allowed: 1 to {self.context}")
        tokens = torch.tensor([list(ids)], device=self.run.device)
        hidden = self.run.model(tokens, readout=lambda head, hidden: hidden)[0].float().mean(0)
        return hidden / hidden.norm().clamp(min=1e-12)


def check_cache(run: Run, blocks: int) -> None:
    """Raise TooLarge, before anything is loaded, for weights that do not fit together with their KV cache."""
    per_token = getattr(cost(run.recipe), "kv_cache_bytes_per_token", 0)
    block, files = per_token * BLOCK, headers([run.folder / "model.safetensors"])
    left = (room().bytes - sum(FLOAT * file.elements for file in files)) // max(1, block)
    hint = f"--blocks {left} fits" if block and left >= 2 else ""
    check_weights(f"serving {run.folder}", files, cache=blocks * block, hint=hint)
