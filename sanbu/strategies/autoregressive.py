"""Piece by piece: p(x) = prod_t p(x_t | x_<t), one token a step, with cached keys and values.

Each row keeps its own place in the cache, so prompts of unequal length need no padding inside, and a row gets the same
tokens alone and in any batch. Shapes: B rows, S slots of the cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.data.kinds import Space
from sanbu.models.transformer import Cache, Decoder
from sanbu.noise import uniform_at
from sanbu.strategies import kinds
from sanbu.strategies.filters import Filter, draw, filters
from sanbu.strategies.strategy import Batch, Draft, Models

Decode = Callable[[nn.Module, "State"], tuple[Tensor, Tensor]]


@dataclass
class State:
    """tokens_BS and their log-probabilities; row b has length_B tokens, the first start_B given, filled_B of them cached."""

    tokens: Tensor
    length: Tensor
    start: Tensor
    limit: Tensor
    done: Tensor
    seeds: Tensor
    evaluations: Tensor
    filled: Tensor
    logprobs: Tensor = field(default_factory=lambda: torch.zeros(0))
    cache: Cache | None = None
    seen: Tensor | None = None


def autoregressive(config: kinds.Autoregressive, space: Space) -> AutoregressiveStrategy:
    """The strategy of a config, its decoding step left as Python runs it."""
    return AutoregressiveStrategy(config, space.end)


class AutoregressiveStrategy:
    """Draws tokens left to right. `compile` turns the decoding step into one compiled function of fixed shapes."""

    def __init__(self, config: kinds.Autoregressive, end: int | None) -> None:
        self.config, self.end = config, end
        self.filters = filters(config)
        self.decode = self._decode

    def compile(self) -> AutoregressiveStrategy:
        """Compile the decoding step; worth its half minute where thousands of tokens are drawn."""
        self.decode = torch.compile(self._decode, dynamic=False)
        return self

    def begin(self, condition: Batch, seeds: Tensor) -> State:
        """From tokens_BT padded on the right, and length_B."""
        tokens, length = condition["tokens"], condition["length"]
        zeros = torch.zeros_like(length)
        return State(tokens, length.clone(), length, length + self.config.max_tokens, zeros.bool(), seeds, zeros, zeros)

    def advance(self, models: Models, state: State) -> State:
        """One chunk of the prompts into the cache, or one more token for each row. Writes into the state."""
        model = models["model"]
        if state.cache is None:
            self._make_room(model, state)
        if bool((state.filled < state.length - 1).any()):
            return prefill(model, state, self.config.prefill)
        token_B, logprob_B = self.decode(model, state)
        return commit(state, token_B, logprob_B, self.end)

    def draft(self, state: State) -> Draft:
        """Tokens so far; the record holds start_B and logprobs_BS of the model itself, unfiltered, at temperature 1."""
        committed = torch.arange(state.tokens.shape[1], device=state.tokens.device) < state.length[:, None]
        record = {"start": state.start, "logprobs": state.logprobs}
        return Draft(state.tokens, committed, state.done, state.evaluations, record=record)

    def _decode(self, model: nn.Module, state: State) -> tuple[Tensor, Tensor]:
        """The next token of each row and its log-probability."""
        last_B = (state.length - 1)[:, None]
        logits_BV = model(state.tokens.gather(1, last_B), last_B, state.cache)[:, -1].float()
        seen_BV = state.seen if state.seen is not None else torch.zeros_like(logits_BV, dtype=torch.bool)
        chosen = logits_BV
        for apply in self.filters:
            chosen = apply(chosen, seen_BV)
        if self.config.temperature == 0:
            token_B = chosen.argmax(-1)
        else:
            token_B = draw(chosen, uniform_at(state.seeds, state.length - state.start))
        return token_B, logits_BV.log_softmax(-1).gather(1, token_B[:, None])[:, 0]

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
    state.cache = model.cache(rows, slots)
    state.filled, state.evaluations = state.filled.clone(), state.evaluations.clone()


def prefill(model: nn.Module, state: State, chunk: int) -> State:
    """Up to `chunk` more prompt tokens of each row into the cache; each row's last token is left to the first decode."""
    missing = (state.length - 1 - state.filled).clamp(min=0)
    wide = min(chunk, int(missing.max()))
    positions_BT = state.filled[:, None] + torch.arange(wide, device=state.filled.device)
    positions_BT = positions_BT.clamp(max=state.tokens.shape[1] - 1)  # beyond a row's prompt: rewritten before it is seen
    model(state.tokens.gather(1, positions_BT), positions_BT, state.cache, readout=lambda head, hidden: hidden[:, :0])
    state.filled += missing.clamp(max=wide)
    state.evaluations += 1
    return state


def commit(state: State, token_B: Tensor, logprob_B: Tensor, end: int | None) -> State:
    """Append a token to each row that is not done; an end ends its row and is not part of the sample."""
    going = ~state.done
    if end is not None:
        state.done = state.done | (token_B == end)
    place = torch.where(going & ~state.done, state.length, state.length - 1)[:, None]
    kept = (going & ~state.done)[:, None]
    state.tokens.scatter_(1, place, torch.where(kept, token_B[:, None], state.tokens.gather(1, place)))
    state.logprobs.scatter_(1, place, torch.where(kept, logprob_B[:, None], state.logprobs.gather(1, place)))
    if state.seen is not None:
        state.seen.scatter_(1, token_B[:, None], True)
    state.length = state.length + kept[:, 0]
    state.filled = torch.where(kept[:, 0], state.length - 1, state.filled)
    state.evaluations = state.evaluations + going
    state.done = state.done | (state.length >= state.limit)
    return state
