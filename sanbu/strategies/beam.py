"""Beam search: extend each of a row's hypotheses by every token, and keep the W continuations of highest score.

A finished hypothesis stays in the beam with its score. Scores are log-probabilities over length^penalty (Wu and others,
2016, without their constant). Rows of the same prompt share one search and show its best hypotheses, each another one.
Shapes: B rows, U different prompts, W beams, S slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import ConfigError
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.autoregressive import TokenState, allocate, among, begin, prefill, valid_slots
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class BeamState:
    """U * W hypotheses as the rows of a `TokenState`, with score_UW (log-probability), ended_UW and done_B.

    search_B: the search that a row shows. place_B: which of its hypotheses, 0 the best.
    """

    rows: TokenState
    search: Tensor
    place: Tensor
    score: Tensor
    ended: Tensor
    done: Tensor


class BeamSearch(StrategyConfig):
    """Beam search: the most likely continuation, with `beams` hypotheses per row."""

    kind: Literal["beam-search"] = "beam-search"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    together: ClassVar[bool] = True
    max_tokens: int = Field(128, ge=1, description="maximum number of new tokens")
    beams: int = Field(4, ge=1, le=4096, description="number of beams")
    length_penalty: float = Field(0.0, description="exponent of the length that a score is divided by; 0 disables")
    stop: tuple[str, ...] = Field((), description="texts that end a sample; not part of the sample")
    prefill: int = Field(512, ge=1, description="prompt tokens per row and prefill step")

    def check(self, space: Space) -> None:
        if space.grammar is not None:
            raise ValueError("strategy: 'beam-search' draws text, but only some sequences of these tokens are samples")

    def check_samples(self, count: int) -> None:
        if count > self.beams:
            raise ConfigError(
                f"strategy.beams: given {self.beams}, but {count} samples of one prompt are asked for, and beam search"
                " gives at most one per beam; raise strategy.beams"
            )

    def build(self, space: Space) -> Strategy:
        return BeamSearchStrategy(self, space)


class BeamSearchStrategy:
    """Keeps the W best hypotheses of each row at every token."""

    def __init__(self, config: BeamSearch, space: Space) -> None:
        self.config, self.ends = config, space.ends

    def begin(self, condition: Batch, seeds: Tensor) -> BeamState:
        """Every hypothesis is the prompt; the first step extends only the first of each search. Seeds are not used."""
        beams = self.config.beams
        first, search, place = prompts(condition["tokens"], condition["length"])
        place = place % beams
        each = {name: tensor[first].repeat_interleave(beams, 0) for name, tensor in condition.items()}
        rows = begin(each, seeds[first].repeat_interleave(beams), self.config.max_tokens)
        score = torch.full((len(first), beams), -torch.inf, dtype=torch.float64, device=seeds.device)
        score[:, 0] = 0.0
        ended = torch.zeros_like(score, dtype=torch.bool)
        return BeamState(rows, search, place, score, ended, torch.zeros_like(seeds, dtype=torch.bool))

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
        logprob_NV = self._one_end(logits.double().log_softmax(-1))
        self._keep_best(state, logprob_NV.unflatten(0, state.score.shape))
        return state

    def draft(self, state: BeamState) -> Draft:
        """The hypothesis that each row shows; its new tokens are committed only when the row is done."""
        rows = state.rows
        order_UW = self._normalize(state.score, rows).argsort(dim=1, descending=True, stable=True)
        beam = order_UW[state.search, state.place]
        shown = state.search * self.config.beams + beam
        committed = valid_slots(rows.tokens, torch.where(state.done, rows.length[shown], rows.start[shown]))
        record = {"start": rows.start[shown], "score": state.score[state.search, beam]}
        return Draft(rows.tokens[shown], committed, state.done, rows.evaluations[shown], record=record)

    def _normalize(self, score_UW: Tensor, rows: TokenState) -> Tensor:
        new = (rows.length - rows.start).view_as(score_UW).clamp(min=1)
        return score_UW / new**self.config.length_penalty

    def _one_end(self, logprob_NV: Tensor) -> Tensor:
        """All end tokens as the first of them: the text is the same, so it must not fill several beams."""
        if len(self.ends) < 2:
            return logprob_NV
        ends = list(self.ends)
        whole_N = logprob_NV[:, ends].logsumexp(-1)
        logprob_NV[:, ends] = -torch.inf
        logprob_NV[:, ends[0]] = whole_N
        return logprob_NV

    def _keep_best(self, state: BeamState, logprob_UWV: Tensor) -> None:
        rows, (U, W, V) = state.rows, logprob_UWV.shape
        unchanged_UWV = torch.full_like(logprob_UWV, -torch.inf)
        unchanged_UWV[..., 0] = 0.0  # an ended hypothesis has one continuation: itself
        total_UWV = state.score[..., None] + torch.where(state.ended[..., None], unchanged_UWV, logprob_UWV)
        new_UW = (rows.length - rows.start).view(U, W) + (~state.ended).long()
        normalized_UWV = total_UWV / new_UW[..., None].clamp(min=1) ** self.config.length_penalty
        chosen_UW = normalized_UWV.flatten(1).topk(W, dim=1).indices
        source_UW, token_UW = chosen_UW // V, chosen_UW % V
        state.score = total_UWV.flatten(1).gather(1, chosen_UW)
        ended_UW = state.ended.gather(1, source_UW)
        ended_UW = ended_UW | among(token_UW, self.ends)
        first_U1 = torch.arange(U, device=source_UW.device)[:, None] * W
        self._reorder(rows, (source_UW + first_U1).flatten())
        self._append(rows, token_UW.flatten(), ~ended_UW.flatten())
        state.ended = ended_UW | (rows.length >= rows.limit).view(U, W)
        state.done = state.done | state.ended.all(1)[state.search]

    def _append(self, rows: TokenState, token_N: Tensor, grows_N: Tensor) -> None:
        """Append a token to each of the N = U W hypotheses that grows."""
        place_N1 = rows.length.clamp(max=rows.tokens.shape[1] - 1)[:, None]
        kept_N1 = torch.where(grows_N[:, None], token_N[:, None], rows.tokens.gather(1, place_N1))
        rows.tokens.scatter_(1, place_N1, kept_N1)
        rows.length = rows.length + grows_N.long()
        rows.filled = rows.length - 1

    def _reorder(self, rows: TokenState, order: Tensor) -> None:
        rows.tokens, rows.length = rows.tokens[order], rows.length[order]
        rows.cache = [layer.keep(order) for layer in rows.cache]


def prompts(tokens_BT: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """first_U, the first row of each prompt; search_B, the prompt of a row; place_B, its place among rows of it."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for number, (row, length) in enumerate(zip(tokens_BT.tolist(), length_B.tolist(), strict=True)):
        rows.setdefault(tuple(row[:length]), []).append(number)
    search, place = torch.zeros_like(length_B), torch.zeros_like(length_B)
    for number, equal in enumerate(rows.values()):
        search[equal] = number
        place[equal] = torch.arange(len(equal), device=place.device)
    return torch.tensor([equal[0] for equal in rows.values()], device=length_B.device), search, place
