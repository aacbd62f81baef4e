"""Beam search: keep the most likely hypotheses of each row, extend each by every token, keep the best again.

A finished hypothesis stays among the kept with the score it has; scores are log-probabilities over length^penalty
(Wu and others, 2016, without their constant). Shapes: B rows, W beams, S slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.autoregressive import State, begin, make_room, prefill
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class Beams:
    """The hypotheses as rows of an autoregressive state, B W of them, with score_BW, ended_BW and done_B."""

    rows: State
    score: Tensor
    ended: Tensor
    done: Tensor


class BeamSearch(StrategyConfig):
    """The most likely continuation among `beams` kept at each token."""

    kind: Literal["beam-search"] = "beam-search"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    max_tokens: int = Field(128, ge=1, description="maximum number of new tokens")
    beams: int = Field(4, ge=1, description="number of beams")
    length_penalty: float = Field(0.0, description="scores are divided by length to this power")
    stop: tuple[str, ...] = Field((), description="stop texts; not part of the sample")
    prefill: int = Field(512, ge=1, description="prompt tokens per prefill step")

    def build(self, space: Space) -> Strategy:
        return BeamSearcher(self, space)


class BeamSearcher:
    """The most likely continuation among so many kept at each token."""

    def __init__(self, config: BeamSearch, space: Space) -> None:
        self.config, self.end = config, space.end

    def begin(self, condition: Batch, seeds: Tensor) -> Beams:
        """Every beam begins as the prompt; only the first may be extended at the first step. Seeds play no part."""
        beams = self.config.beams
        each = {name: tensor.repeat_interleave(beams, 0) for name, tensor in condition.items()}
        rows = begin(each, seeds.repeat_interleave(beams), self.config.max_tokens)
        score = torch.full((len(seeds), beams), -torch.inf, dtype=torch.float64, device=seeds.device)
        score[:, 0] = 0.0
        return Beams(rows, score, torch.zeros_like(score, dtype=torch.bool), torch.zeros_like(seeds, dtype=torch.bool))

    def advance(self, models: Models, state: Beams) -> Beams:
        """Extend every hypothesis by one token and keep the best. Writes into the state."""
        model, rows = models["model"], state.rows
        if not rows.cache:
            make_room(model, rows)
        if bool((rows.filled < rows.length - 1).any()):
            prefill(model, rows, self.config.prefill)
            return state
        last = (rows.length - 1)[:, None]
        logits = model(rows.tokens.gather(1, last), last, rows.cache)[:, -1]
        rows.evaluations += 1
        self._keep_best(state, logits.double().log_softmax(-1).unflatten(0, state.score.shape))
        return state

    def draft(self, state: Beams) -> Draft:
        """The best hypothesis of each row; committed only when the row is done."""
        rows = state.rows
        best = (
            self._normalised(state.score, rows).argmax(1)
            + torch.arange(len(state.done), device=state.done.device) * self.config.beams
        ).to(rows.tokens.device)
        shown = torch.where(state.done, rows.length[best], rows.start[best])
        committed = torch.arange(rows.tokens.shape[1], device=best.device) < shown[:, None]
        record = {"start": rows.start[best], "score": state.score.amax(1)}
        return Draft(rows.tokens[best], committed, state.done, rows.evaluations[best], record=record)

    def _normalised(self, score_BW: Tensor, rows: State) -> Tensor:
        new = (rows.length - rows.start).view_as(score_BW).clamp(min=1)
        return score_BW / new**self.config.length_penalty

    def _keep_best(self, state: Beams, logprob_BWV: Tensor) -> None:
        rows, (B, W, V) = state.rows, logprob_BWV.shape
        stay = torch.full_like(logprob_BWV, -torch.inf)
        stay[..., 0] = 0.0  # an ended hypothesis has one continuation: itself
        total = state.score[..., None] + torch.where(state.ended[..., None], stay, logprob_BWV)
        new = (rows.length - rows.start).view(B, W) + ~state.ended
        chosen = (total / new[..., None].clamp(min=1) ** self.config.length_penalty).flatten(1).topk(W, dim=1).indices
        source, token = chosen // V, chosen % V
        state.score = total.flatten(1).gather(1, chosen)
        ended = state.ended.gather(1, source)
        now_ended = ended | (token == self.end if self.end is not None else torch.zeros_like(ended))
        self._reorder(rows, (source + torch.arange(B, device=source.device)[:, None] * W).flatten())
        grows = ~now_ended.flatten()
        place = rows.length.clamp(max=rows.tokens.shape[1] - 1)[:, None]
        kept = torch.where(grows[:, None], token.flatten()[:, None], rows.tokens.gather(1, place))
        rows.tokens.scatter_(1, place, kept)
        rows.length = rows.length + grows
        rows.filled = rows.length - 1
        state.ended = now_ended | (rows.length >= rows.limit).view(B, W)
        state.done = state.done | state.ended.all(1)

    def _reorder(self, rows: State, order: Tensor) -> None:
        rows.tokens, rows.length = rows.tokens[order], rows.length[order]
        for layer in rows.cache:
            layer.keys.copy_(layer.keys[order])
            layer.values.copy_(layer.values[order])
