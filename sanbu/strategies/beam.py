"""Beam search: extend each of a row's hypotheses by every token, and keep the W continuations of highest score.

A finished hypothesis stays in the beam with its score. Scores are log-probabilities over length^penalty (Wu and others,
2016, without their constant). Shapes: B rows, W beams, S slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.autoregressive import TokenState, allocate, among, begin, prefill, valid_slots
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class BeamState:
    """B * W hypotheses as the rows of a `TokenState`, with score_BW (log-probability), ended_BW and done_B."""

    rows: TokenState
    score: Tensor
    ended: Tensor
    done: Tensor


class BeamSearch(StrategyConfig):
    """Beam search: the most likely continuation, with `beams` hypotheses per row."""

    kind: Literal["beam-search"] = "beam-search"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    max_tokens: int = Field(128, ge=1, description="maximum number of new tokens")
    beams: int = Field(4, ge=1, description="number of beams")
    length_penalty: float = Field(0.0, description="exponent of the length that a score is divided by; 0 disables")
    stop: tuple[str, ...] = Field((), description="texts that end a sample; not part of the sample")
    prefill: int = Field(512, ge=1, description="prompt tokens per row and prefill step")

    def build(self, space: Space) -> Strategy:
        return BeamSearchStrategy(self, space)


class BeamSearchStrategy:
    """Keeps the W best hypotheses of each row at every token."""

    def __init__(self, config: BeamSearch, space: Space) -> None:
        self.config, self.ends = config, space.ends

    def begin(self, condition: Batch, seeds: Tensor) -> BeamState:
        """Every hypothesis is the prompt; the first step extends only the first of each row. Seeds are not used."""
        beams = self.config.beams
        each = {name: tensor.repeat_interleave(beams, 0) for name, tensor in condition.items()}
        rows = begin(each, seeds.repeat_interleave(beams), self.config.max_tokens)
        score = torch.full((len(seeds), beams), -torch.inf, dtype=torch.float64, device=seeds.device)
        score[:, 0] = 0.0
        return BeamState(
            rows, score, torch.zeros_like(score, dtype=torch.bool), torch.zeros_like(seeds, dtype=torch.bool)
        )

    def advance(self, models: Models, state: BeamState) -> BeamState:
        """Extend every hypothesis by one token and keep the best. Modifies the state in place."""
        model, rows = models["model"], state.rows
        if not rows.cache:
            allocate(model, rows)
        if bool((rows.filled < rows.length - 1).any()):
            prefill(model, rows, self.config.prefill)
            return state
        last = (rows.length - 1)[:, None]
        logits = model(rows.tokens.gather(1, last), last, rows.cache)[:, -1]
        rows.evaluations += 1
        self._keep_best(state, logits.double().log_softmax(-1).unflatten(0, state.score.shape))
        return state

    def draft(self, state: BeamState) -> Draft:
        """The best hypothesis of each row; its new tokens are committed only when the row is done."""
        rows = state.rows
        first = torch.arange(len(state.done), device=state.done.device) * self.config.beams
        best = first + self._normalize(state.score, rows).argmax(1)
        best = best.to(rows.tokens.device)
        committed = valid_slots(rows.tokens, torch.where(state.done, rows.length[best], rows.start[best]))
        record = {"start": rows.start[best], "score": state.score.amax(1)}
        return Draft(rows.tokens[best], committed, state.done, rows.evaluations[best], record=record)

    def _normalize(self, score_BW: Tensor, rows: TokenState) -> Tensor:
        new = (rows.length - rows.start).view_as(score_BW).clamp(min=1)
        return score_BW / new**self.config.length_penalty

    def _keep_best(self, state: BeamState, logprob_BWV: Tensor) -> None:
        rows, (B, W, V) = state.rows, logprob_BWV.shape
        unchanged_BWV = torch.full_like(logprob_BWV, -torch.inf)
        unchanged_BWV[..., 0] = 0.0  # an ended hypothesis has one continuation: itself
        total_BWV = state.score[..., None] + torch.where(state.ended[..., None], unchanged_BWV, logprob_BWV)
        new_BW = (rows.length - rows.start).view(B, W) + (~state.ended).long()
        normalized_BWV = total_BWV / new_BW[..., None].clamp(min=1) ** self.config.length_penalty
        chosen_BW = normalized_BWV.flatten(1).topk(W, dim=1).indices
        source_BW, token_BW = chosen_BW // V, chosen_BW % V
        state.score = total_BWV.flatten(1).gather(1, chosen_BW)
        ended_BW = state.ended.gather(1, source_BW)
        ended_BW = ended_BW | among(token_BW, self.ends)
        first_B1 = torch.arange(B, device=source_BW.device)[:, None] * W
        self._reorder(rows, (source_BW + first_B1).flatten())
        self._append(rows, token_BW.flatten(), ~ended_BW.flatten())
        state.ended = ended_BW | (rows.length >= rows.limit).view(B, W)
        state.done = state.done | state.ended.all(1)

    def _append(self, rows: TokenState, token_N: Tensor, grows_N: Tensor) -> None:
        """Append a token to each of the N = B W hypotheses that grows."""
        place_N1 = rows.length.clamp(max=rows.tokens.shape[1] - 1)[:, None]
        kept_N1 = torch.where(grows_N[:, None], token_N[:, None], rows.tokens.gather(1, place_N1))
        rows.tokens.scatter_(1, place_N1, kept_N1)
        rows.length = rows.length + grows_N.long()
        rows.filled = rows.length - 1

    def _reorder(self, rows: TokenState, order: Tensor) -> None:
        rows.tokens, rows.length = rows.tokens[order], rows.length[order]
        for layer in rows.cache:
            layer.keys.copy_(layer.keys[order])
            layer.values.copy_(layer.values[order])
