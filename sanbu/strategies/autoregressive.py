"""Piece by piece: p(x) = prod_t p(x_t | x_<t), one token a step, with cached keys and values.

Each row keeps its own place in the cache, so prompts of unequal length need no padding inside, and a row gets the
same tokens alone and in any batch. Shapes: B rows, S slots of the cache, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.models.tokens.transformer import Cache, Decoder
from sanbu.noise import uniform_at
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.filters import Sampling, draw, filters
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class State:
    """tokens_BS and log-probabilities; row b has length_B tokens, the first start_B given, filled_B of them cached.

    A row ends at limit_B tokens, or with the token ending_B (-1: none yet) of log-probability end_logprob_B. seen_BV
    says which tokens a row holds already, where a filter asks for it. All are written in place.
    """

    tokens: Tensor
    length: Tensor
    start: Tensor
    limit: Tensor
    done: Tensor
    seeds: Tensor
    evaluations: Tensor
    filled: Tensor
    logprobs: Tensor = field(default_factory=lambda: torch.zeros(0))
    ending: Tensor = field(default_factory=lambda: torch.zeros(0))
    end_logprob: Tensor = field(default_factory=lambda: torch.zeros(0))
    seen: Tensor | None = None
    cache: Cache = field(default_factory=list)


def begin(condition: Batch, seeds: Tensor, max_tokens: int) -> State:
    """A state from tokens_BT padded on the right, and length_B; the cache comes with the first step."""
    tokens, length = condition["tokens"], condition["length"]
    zeros = torch.zeros_like(length)
    return State(tokens, length.clone(), length, length + max_tokens, zeros.bool(), seeds, zeros.clone(), zeros.clone())


class Autoregressive(Sampling, StrategyConfig):
    """Token by token, left to right, with a key-value cache."""

    kind: Literal["autoregressive"] = "autoregressive"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    max_tokens: int = Field(128, ge=1, description="maximum number of new tokens")
    stop: tuple[str, ...] = Field((), description="stop texts; not part of the sample")
    prefill: int = Field(512, ge=1, description="prompt tokens per prefill step")

    def build(self, space: Space) -> Strategy:
        return AutoregressiveStrategy(self, space)


class AutoregressiveStrategy:
    """Draws tokens left to right. `compile` turns a step into one compiled function of fixed shapes."""

    def __init__(self, config: Autoregressive, space: Space) -> None:
        self.config, self.end = config, space.end
        self.filters = filters(config)
        self.step: Any = self._step

    def compile(self) -> AutoregressiveStrategy:
        """Compile the step for each power of two of slots; worth its minute for thousands of tokens."""
        self.step = torch.compile(self._step, dynamic=False, options={"cpp_wrapper": True})
        return self

    def begin(self, condition: Batch, seeds: Tensor) -> State:
        """From tokens_BT padded on the right, and length_B."""
        return begin(condition, seeds, self.config.max_tokens)

    def advance(self, models: Models, state: State) -> State:
        """One chunk of the prompts into the cache, or one more token for each row. Writes into the state."""
        model = models["model"]
        if not state.cache:
            self._make_room(model, state)
        if bool((state.filled < state.length - 1).any()):
            return prefill(model, state, self.config.prefill)
        longest = int(state.length.max())
        slots = min(state.tokens.shape[1], max(64, 1 << (longest - 1).bit_length()))
        self.step(model, state, [layer.first(slots) for layer in state.cache])
        return state

    def draft(self, state: State) -> Draft:
        """Tokens so far; the record holds start_B, ending_B and the model's unfiltered log-probabilities."""
        committed = torch.arange(state.tokens.shape[1], device=state.tokens.device) < state.length[:, None]
        record = {"start": state.start, "logprobs": state.logprobs}
        record |= {"ending": state.ending, "end_logprob": state.end_logprob}
        return Draft(state.tokens, committed, state.done, state.evaluations, record=record)

    def _step(self, model: nn.Module, state: State, cache: Cache) -> None:
        """Sample one token per row that is not done and append it; an end token ends its row and is not kept."""
        last_B1 = (state.length - 1)[:, None]
        logits_BV = model(state.tokens.gather(1, last_B1), last_B1, cache)[:, -1].float()
        token_B1 = self._choose(logits_BV, state)[:, None]
        logprob_B1 = logits_BV.log_softmax(-1).gather(1, token_B1)
        going = ~state.done
        kept = going if self.end is None else going & (token_B1[:, 0] != self.end)
        place_B1 = torch.where(kept, state.length, state.length - 1)[:, None]
        state.tokens.scatter_(1, place_B1, torch.where(kept[:, None], token_B1, state.tokens.gather(1, place_B1)))
        state.logprobs.scatter_(1, place_B1, torch.where(kept[:, None], logprob_B1, state.logprobs.gather(1, place_B1)))
        state.end_logprob += torch.where(going & ~kept, logprob_B1[:, 0], 0.0)
        state.ending.copy_(torch.where(going & ~kept, token_B1[:, 0], state.ending))
        if state.seen is not None:
            state.seen.scatter_(1, token_B1, True)
        state.length += kept
        state.filled += kept
        state.evaluations += going
        state.done |= ~kept | (state.length >= state.limit)

    def _choose(self, logits_BV: Tensor, state: State) -> Tensor:
        for apply in self.filters:
            logits_BV = apply(logits_BV, state.seen)
        if self.config.temperature == 0:
            return logits_BV.argmax(-1)
        return draw(logits_BV, uniform_at(state.seeds, state.length - state.start))

    def _make_room(self, model: Decoder, state: State) -> None:
        make_room(model, state)
        if self.config.repetition_penalty != 1:
            vocabulary = model.embedding.tokens.weight.shape[0]
            given = torch.arange(state.tokens.shape[1], device=state.tokens.device) < state.length[:, None]
            counts = torch.zeros(len(state.tokens), vocabulary, dtype=torch.long, device=state.tokens.device)
            state.seen = counts.scatter_add(1, state.tokens, given.long()) > 0


def make_room(model: Decoder, state: State) -> None:
    """Widen the tokens to the cache's slots and make the cache. Raises SanbuError when a prompt is too long."""
    longest = int(state.length.max())
    if longest >= model.context:
        raise SanbuError(f"the prompt has {longest} tokens, but the longest sequence of this model is {model.context}")
    state.limit = state.limit.clamp(max=model.context)
    slots = min(model.context, -(-int(state.limit.max()) // 64) * 64)
    rows, given = state.tokens.shape
    state.tokens = torch.nn.functional.pad(state.tokens[:, :slots], (0, max(0, slots - given)))
    state.logprobs = torch.zeros(rows, slots, device=state.tokens.device)
    state.end_logprob = torch.zeros(rows, device=state.tokens.device)
    state.ending = torch.full((rows,), -1, device=state.tokens.device)
    state.cache = model.cache(rows, slots)


def prefill(model: nn.Module, state: State, chunk: int) -> State:
    """Prefill up to `chunk` prompt tokens per row; each row's last token is left to the first decoding step."""
    missing = (state.length - 1 - state.filled).clamp(min=0)
    wide = min(chunk, int(missing.max()))
    positions_BT = state.filled[:, None] + torch.arange(wide, device=state.filled.device)
    positions_BT = positions_BT.clamp(
        max=state.tokens.shape[1] - 1
    )  # beyond a row's prompt: rewritten before it is seen
    model(state.tokens.gather(1, positions_BT), positions_BT, state.cache, readout=lambda head, hidden: hidden[:, :0])
    state.filled += missing.clamp(max=wide)
    state.evaluations += 1
    return state
