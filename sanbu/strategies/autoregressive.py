"""Autoregressive sampling: p(x) = prod_t p(x_t | x_<t), one token per step, with a KV cache.

Each row has its own position in the cache. So prompts of unequal length are not padded inside the sequence, and a row
gets the same tokens in every batch. Shapes: B rows, S slots of the cache, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.layers.state import Kept, expect
from sanbu.noise import uniform_at
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.filters import Sampling, draw, filters
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class TokenState:
    """tokens_BS and their logprobs_BS. Row b has length_B tokens: start_B from the prompt, filled_B in the KV cache.

    A row ends at limit_B tokens, or with the token ending_B (-1: none yet) of log-probability end_logprob_B. seen_BV
    marks the tokens that a row already contains; None if no filter needs it. All are modified in place.
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
    cache: Sequence[Kept] = ()


def begin(condition: Batch, seeds: Tensor, max_tokens: int) -> TokenState:
    """A state from tokens_BT, padded on the right, and length_B; the first step allocates the cache."""
    tokens, length = condition["tokens"], condition["length"]
    zeros = torch.zeros_like(length)
    return TokenState(
        tokens=tokens,
        length=length.clone(),
        start=length,
        limit=length + max_tokens,
        done=zeros.bool(),
        seeds=seeds,
        evaluations=zeros.clone(),
        filled=zeros.clone(),
    )


def among(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    """bool, of the shape of `tokens`: which of them are one of these ids."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for number in ids:
        found = found | (tokens == number)
    return found


class Autoregressive(Sampling, StrategyConfig):
    """Token by token, left to right, with a KV cache."""

    kind: Literal["autoregressive"] = "autoregressive"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    max_tokens: int = Field(128, ge=1, description="maximum number of new tokens")
    stop: tuple[str, ...] = Field((), description="texts that end a sample; not part of the sample")
    prefill: int = Field(512, ge=1, description="prompt tokens per row and prefill step")

    def unfiltered(self) -> Autoregressive:
        """Temperature 1 and no filters; `temperature` and the others are for those who use the run."""
        return self.model_copy(update=dict(Sampling()))

    def build(self, space: Space) -> Strategy:
        return AutoregressiveStrategy(self, space)


class AutoregressiveStrategy:
    """Draws tokens left to right. `compile` makes a step one compiled function of fixed shapes."""

    def __init__(self, config: Autoregressive, space: Space) -> None:
        self.config, self.ends, self.vocabulary = config, space.ends, space.vocabulary
        self.grammar = space.grammar
        self.filters = filters(config)
        self.step: Any = self._step

    def compile(self) -> AutoregressiveStrategy:
        """Compile the step once per power of two of slots: takes a minute, pays off after thousands of tokens."""
        self.step = torch.compile(self._step, dynamic=False, options={"cpp_wrapper": True})
        return self

    def begin(self, condition: Batch, seeds: Tensor) -> TokenState:
        """From tokens_BT, padded on the right, and length_B."""
        return begin(condition, seeds, self.config.max_tokens)

    def advance(self, models: Models, state: TokenState) -> TokenState:
        """Prefill one chunk of the prompts, or append one token to each row. Modifies the state in place."""
        model = models["model"]
        if not state.cache:
            self._allocate(model, state)
        if bool((state.filled < state.length - 1).any()):
            return prefill(model, state, self.config.prefill)
        longest = int(state.length.max())
        power_of_two = 1 << (longest - 1).bit_length()
        slots = min(state.tokens.shape[1], max(64, power_of_two))
        self.step(model, state, [layer.first(slots) for layer in state.cache])
        return state

    def keep(self, state: TokenState, rows: Tensor) -> TokenState:
        """The state of some rows, by number or by a mask."""
        tensors = {name: value[rows] for name, value in vars(state).items() if isinstance(value, Tensor)}
        return replace(state, **tensors, cache=[layer.keep(rows) for layer in state.cache])

    def draft(self, state: TokenState) -> Draft:
        """Tokens so far. The record holds start_B, ending_B, and log-probabilities of the unfiltered distribution."""
        committed = valid_slots(state.tokens, state.length)
        record = {"start": state.start, "logprobs": state.logprobs}
        record |= {"ending": state.ending, "end_logprob": state.end_logprob}
        return Draft(state.tokens, committed, state.done, state.evaluations, record=record)

    def _step(self, model: nn.Module, state: TokenState, cache: Sequence[Kept]) -> None:
        """Append one sampled token to each row that is not done. An end token ends its row and is not kept."""
        last_B1 = (state.length - 1)[:, None]
        logits_BV = model(state.tokens.gather(1, last_B1), last_B1, cache)[:, -1].float()
        token_B1 = self._choose(logits_BV, state)[:, None]
        logprob_B1 = logits_BV.log_softmax(-1).gather(1, token_B1)
        active = ~state.done
        kept = active & ~among(token_B1[:, 0], self.ends)
        ended = active & ~kept
        place_B1 = torch.where(kept, state.length, state.length - 1)[:, None]
        kept_B1 = kept[:, None]
        state.tokens.scatter_(1, place_B1, torch.where(kept_B1, token_B1, state.tokens.gather(1, place_B1)))
        state.logprobs.scatter_(1, place_B1, torch.where(kept_B1, logprob_B1, state.logprobs.gather(1, place_B1)))
        state.end_logprob += torch.where(ended, logprob_B1[:, 0], 0.0)
        state.ending.copy_(torch.where(ended, token_B1[:, 0], state.ending))
        if state.seen is not None:
            state.seen.scatter_(1, token_B1, True)
        state.length += kept.long()
        state.filled += kept.long()
        state.evaluations += active.long()
        state.done |= ~kept | (state.length >= state.limit)

    def _choose(self, logits_BV: Tensor, state: TokenState) -> Tensor:
        if self.grammar is not None:
            logits_BV = logits_BV.masked_fill(~self.grammar(state.tokens, state.length), -torch.inf)
        for apply in self.filters:
            logits_BV = apply(logits_BV, state.seen)
        if self.config.temperature == 0:
            return logits_BV.argmax(-1)
        return draw(logits_BV, uniform_at(state.seeds, state.length - state.start))

    def _allocate(self, model: Any, state: TokenState) -> None:
        allocate(model, state)
        if self.config.repetition_penalty != 1:
            given_BS = valid_slots(state.tokens, state.length)
            counts_BV = torch.zeros(len(state.tokens), self.vocabulary, dtype=torch.long, device=state.tokens.device)
            state.seen = counts_BV.scatter_add(1, state.tokens, given_BS.long()) > 0


def valid_slots(tokens_BS: Tensor, length_B: Tensor) -> Tensor:
    """valid_BS: the slots that hold a token, the first length_B of each row."""
    return torch.arange(tokens_BS.shape[1], device=tokens_BS.device) < length_B[:, None]


def allocate(model: Any, state: TokenState) -> None:
    """Pad the tokens to the slots of the cache and allocate the cache. Raises SanbuError if a prompt is too long."""
    longest = int(state.length.max())
    if longest >= model.context:
        raise SanbuError(f"the prompt has {longest} tokens, but the longest sequence of this model is {model.context}")
    state.limit = state.limit.clamp(max=model.context)
    slots = min(model.context, 64 * math.ceil(int(state.limit.max()) / 64))
    rows, given = state.tokens.shape
    padding = max(0, slots - given)
    state.tokens = torch.nn.functional.pad(state.tokens[:, :slots], (0, padding))
    state.logprobs = torch.zeros(rows, slots, device=state.tokens.device)
    state.end_logprob = torch.zeros(rows, device=state.tokens.device)
    state.ending = torch.full((rows,), -1, device=state.tokens.device)
    state.cache = model.cache(rows, slots)


def skip_head(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
    """A readout that computes no logits."""
    return hidden_BTD[:, :0]


def prefill(model: nn.Module, state: TokenState, chunk: int) -> TokenState:
    """Prefill up to `chunk` prompt tokens per row. The first decoding step reads the last token of each row."""
    missing_B = (state.length - 1 - state.filled).clamp(min=0)
    width = min(chunk, int(missing_B.max()))
    positions_BT = state.filled[:, None] + torch.arange(width, device=state.filled.device)
    # Slots after the end of a shorter prompt get wrong keys and values; they are overwritten before they are read. A
    # state is told how many tokens each row reads.
    positions_BT = positions_BT.clamp(max=state.tokens.shape[1] - 1)
    tokens_BT = state.tokens.gather(1, positions_BT)
    reads_B = missing_B.clamp(max=width)
    expect(state.cache, reads_B)
    model(tokens_BT, positions_BT, state.cache, readout=skip_head)
    expect(state.cache, None)
    state.filled += reads_B
    state.evaluations += 1
    return state
