"""Cells: a row of a table, column by column, from any given cells: generation, conditions and imputation.

A model has an order of the columns and draws each missing cell given those before it. Where a given cell comes later, a
row is a set of particles: each draws its missing cells and is weighted by the probability of the given ones; they are
resampled when the effective sample size falls below half of their number (Gordon and others, 1993). A model whose laws
take any known cells (`any_order`) needs no particles; one with `complete` draws all cells at once. Given cells come
back as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.noise import mix, uniform_at
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class CellsState:
    """cells_BPC of P particles; known_BC; weight_BP: log weights. late_B: rows whose particles count. step: columns."""

    cells: Tensor
    given: Tensor
    known: Tensor
    weight: Tensor
    late: Tensor
    log_prob: Tensor
    seeds: Tensor
    done: Tensor
    order: tuple[int, ...] | None = None
    step: int = 0


class Cells(StrategyConfig):
    """Rows of a table from any given cells."""

    kind: Literal["cells"] = "cells"
    families: ClassVar[tuple[str, ...]] = ("columns",)
    at_once: ClassVar[int] = 5000
    missing: Literal["drawn", "never"] = Field("drawn", description="whether a drawn cell may be missing")
    law: Literal["seen", "further"] = Field(
        "seen", description="laws: as among the rows that were seen, or as wide as they are for a further row"
    )
    particles: int = Field(100, ge=1, description="draws per row where a given column comes after a missing one")

    def check(self, space: Space) -> None:
        if not space.columns:
            raise ValueError("strategy: 'cells' draws rows of a table, but the data has none; set data=table")

    def build(self, space: Space) -> Strategy:
        return CellsStrategy(self, space)


class CellsStrategy:
    """Draws the missing cells of each row."""

    def __init__(self, config: Cells, space: Space) -> None:
        self.config, self.columns = config, space.columns
        self.missing, self.further = config.missing == "drawn", config.law == "further"

    def begin(self, condition: Batch, seeds: Tensor) -> CellsState:
        """From cells_BC, of which given_BC are given; without both, from nothing."""
        rows, width = len(seeds), len(self.columns)
        blank = torch.full((rows, width), torch.nan, dtype=torch.float64, device=seeds.device)
        given = condition.get("given", torch.zeros_like(blank, dtype=torch.bool))
        cells = torch.where(given, condition.get("cells", blank), blank)
        zeros = torch.zeros(rows, 1, dtype=torch.float64, device=seeds.device)
        none = torch.zeros_like(seeds, dtype=torch.bool)
        log_prob, late = zeros[:, 0], none.clone()
        return CellsState(cells[:, None], given, given.clone(), zeros, late, log_prob, seeds, none)

    def advance(self, models: Models, state: CellsState) -> CellsState:
        """Draw one more column of each row, or all at once. Writes into the state."""
        model = models["model"]
        if hasattr(model, "complete"):
            uniform_BC = uniform_at(state.seeds[:, None], torch.arange(len(self.columns), device=state.seeds.device))
            cells_BC = model.complete(state.cells[:, 0], state.given, uniform_BC, self.missing)
            state.cells = cells_BC[:, None]
            return self.end(state)
        if state.order is None:
            state.order = tuple(model.order)
            if not getattr(model, "any_order", False):
                self.spread(state)
        self.draw(model, state, state.order[state.step])
        state.step += 1
        return self.end(state) if state.step == len(state.order) else state

    def spread(self, state: CellsState) -> None:
        """Make particles where any row has a given column after a missing one."""
        assert state.order is not None
        given_BC = state.given[:, list(state.order)]
        later_BC = given_BC.flip(1).cumsum(1).flip(1) > 0
        state.late = (later_BC & ~given_BC).any(1)
        if bool(state.late.any()):
            state.cells = state.cells.repeat(1, self.config.particles, 1)
            state.weight = state.weight.repeat(1, self.config.particles)

    def draw(self, model: object, state: CellsState, column: int) -> None:
        """Draw a column where it is missing; weigh the particles by it where it is given."""
        rows, particles, _ = state.cells.shape
        given_B = state.given[:, column]
        flat, known = state.cells.flatten(0, 1), state.known.repeat_interleave(particles, 0)
        law = model.law(flat, known, column, self.further)  # type: ignore[attr-defined]
        drawn_BP = law.draw(self.uniform(state, column).flatten(), self.missing).view(rows, particles)
        cells_BP = torch.where(given_B[:, None], state.cells[:, :, column], drawn_BP)
        state.cells[:, :, column] = cells_BP
        gone_BP = cells_BP.isnan() & (not self.columns[column].missing)
        log_prob_BP = law.log_prob(cells_BP.flatten()).view(rows, particles).masked_fill(gone_BP, 0.0)
        state.log_prob = state.log_prob + torch.where(given_B, 0.0, log_prob_BP[:, 0])
        state.known[:, column] = True
        if particles > 1:
            state.weight = state.weight + torch.where((given_B & state.late)[:, None], log_prob_BP, 0.0)
            self.resample(state)

    def uniform(self, state: CellsState, column: int) -> Tensor:
        """A uniform number for each row and particle: one of each P-th part; the first particle's is the row's own."""
        particles = state.cells.shape[1]
        own_B1 = uniform_at(state.seeds, torch.full_like(state.seeds, column))[:, None]
        if particles == 1:
            return own_B1
        number_P = torch.arange(1, particles, device=own_B1.device)
        key_BP = mix(state.seeds[:, None] * (column + 2) + number_P)
        shift_BP = torch.nn.functional.pad(key_BP.argsort(1) + 1, (1, 0))
        return (own_B1 + shift_BP / particles).remainder(1.0).clamp(1e-12, 1 - 1e-12)

    def resample(self, state: CellsState) -> None:
        """Resample the particles of rows whose effective sample size is below half of their number."""
        share_BP = state.weight.softmax(1)
        poor_B = 1 / share_BP.square().sum(1) < share_BP.shape[1] / 2
        if not bool(poor_B.any()):
            return
        place_BP = self.chosen(state, share_BP, share_BP.shape[1], 1000 + state.step)
        chosen = state.cells.gather(1, place_BP[:, :, None].expand_as(state.cells))
        state.cells = torch.where(poor_B[:, None, None], chosen, state.cells)
        state.weight = torch.where(poor_B[:, None], 0.0, state.weight)

    def chosen(self, state: CellsState, share_BP: Tensor, count: int, number: int) -> Tensor:
        """Places of particles, by their shares, at evenly spaced points from a random one on."""
        start_B1 = uniform_at(state.seeds, torch.full_like(state.seeds, number))[:, None]
        points = (start_B1 + torch.arange(count, device=start_B1.device)) / count
        return torch.searchsorted(share_BP.cumsum(1), points).clamp(max=share_BP.shape[1] - 1)

    def end(self, state: CellsState) -> CellsState:
        """Choose a particle of each row by its weight; a row that needed none keeps its first."""
        if state.cells.shape[1] > 1:
            place_B1 = self.chosen(state, state.weight.softmax(1), 1, 999)
            place_B1 = torch.where(state.late[:, None], place_B1, 0)
            rows = torch.arange(len(place_B1), device=place_B1.device)[:, None]
            state.cells = state.cells[rows, place_B1]
        state.known = torch.ones_like(state.known)
        state.done = torch.ones_like(state.done)
        return state

    def draft(self, state: CellsState) -> Draft:
        """Rows so far; cells that are not drawn yet are missing. log_prob_B: of what was drawn."""
        open_B = state.late & ~state.done
        committed = torch.where(open_B[:, None], state.given, state.known)
        evaluations = torch.full_like(state.seeds, max(state.step, 1))
        return Draft(state.cells[:, 0].clone(), committed, state.done, evaluations, record={"log_prob": state.log_prob})
