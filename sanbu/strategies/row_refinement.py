"""Rows of a table in N refinements of their code (codecs/row_code.py), from any given cells.

The label, where there is one, is drawn first, by the shares of training. Given cells come back as they are. In the code
they are put back after each step with the step's own noise, and each step is taken back and repeated, which lets the
others agree with them (RePaint; Lugmayr and others, 2022):

    x_t = (a_t / a_s) x_s + r e,   r^2 = sigma_t^2 - (a_t / a_s)^2 sigma_s^2

That is an approximation: with one pass a correlation of 0.95 shifts the mean half as far as it should. A label that is
not given cannot be drawn given other cells: that is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.noise import GOLDEN, mix, normal_at, uniform_at
from sanbu.paths import NoisePath
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.refinement import Refinement, RefinementState, RefinementStrategy
from sanbu.strategies.samplers import Memory, levels
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class RowState:
    """cells_BC, of which given_BC are given; inside: the refinement of the code."""

    cells: Tensor
    given: Tensor
    label: Tensor
    inside: RefinementState
    done: Tensor


class RowRefinement(StrategyConfig):
    """Rows of a table in N refinements, from noise to clean along the model's path."""

    kind: Literal["row-refinement"] = "row-refinement"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    at_once: ClassVar[int] = 5000
    sampler: Literal["ancestral", "ddim", "euler", "heun", "dpm-solver"] = Field("heun", description="rule of one step")
    steps: int = Field(20, ge=1, le=100_000, description="number of steps")
    repeats: int = Field(10, ge=1, le=1000, description="times that each step is taken where cells are given")
    missing: Literal["drawn", "never"] = Field("drawn", description="whether a drawn cell may be missing")

    def check(self, space: Space) -> None:
        if space.code is None:
            raise ValueError(
                "strategy: 'row-refinement' draws rows of a table from their code, but the data has none;"
                " set data=encoded-table"
            )

    def check_path(self, path: NoisePath) -> None:
        self.inside().check_path(path)

    def inside(self) -> Refinement:
        """The refinement of the code."""
        return Refinement(sampler=self.sampler, steps=self.steps)

    def build(self, space: Space) -> Strategy:
        return RowRefinementStrategy(self, space)


class RowRefinementStrategy:
    """Refines the code of rows, and decodes each draft."""

    def __init__(self, config: RowRefinement, space: Space) -> None:
        self.missing, self.code, self.repeats = config.missing == "drawn", space.code, config.repeats
        self.steps, self.refinement = config.steps, RefinementStrategy(config.inside(), space)

    def begin(self, condition: Batch, seeds: Tensor) -> RowState:
        """From cells_BC, of which given_BC are given; without both, from nothing."""
        shape = (len(seeds), len(self.code.columns))
        blank = torch.full(shape, torch.nan, dtype=torch.float64, device=seeds.device)
        given = condition.get("given", torch.zeros_like(blank, dtype=torch.bool))
        cells = torch.where(given, condition.get("cells", blank), blank)
        label_B = self.labels(cells, given, seeds)
        uniform_BC = uniform_at(seeds[:, None], torch.arange(shape[1], device=seeds.device))
        inside = {"label": label_B, **self.known(cells, given, uniform_BC)}
        state = self.refinement.begin(inside, seeds)
        return RowState(cells, given, label_B, state, torch.zeros_like(seeds, dtype=torch.bool))

    def known(self, cells_BC: Tensor, given_BC: Tensor, uniform_BC: Tensor) -> Batch:
        """The code of the given cells, and that the others are not missing where they may not be."""
        mask_BF = self.code.given(given_BC)
        known_BF = torch.where(mask_BF, self.code.encode(cells_BC, uniform_BC), -1.0)
        if not self.missing:
            mask_BF = mask_BF | self.code.gaps().to(mask_BF.device)
        return {"known": known_BF, "mask": mask_BF} if bool(mask_BF.any()) else {}

    def labels(self, cells_BC: Tensor, given_BC: Tensor, seeds: Tensor) -> Tensor:
        """The given labels, and drawn ones. Raises SanbuError for a label that other given cells should decide."""
        place = self.code.label
        drawn_B = self.code.draw_labels(uniform_at(seeds, torch.full_like(seeds, len(self.code.columns))))
        if place < 0:
            return drawn_B
        open_B = ~given_BC[:, place]
        if bool((open_B & given_BC.any(1)).any()):
            name = self.code.columns[place].name
            raise SanbuError(
                f"{name}: this flow draws it before all other columns, so give it where other cells are given;"
                " model=column-forest draws it given them, and a flow trained with target=none"
            )
        return torch.where(open_B, drawn_B, self.code.labels(cells_BC))

    def advance(self, models: Models, state: RowState) -> RowState:
        """One refinement. Writes into the state."""
        before = replace(state.inside.memory)
        inside = self.refinement.advance(models, state.inside)
        if inside.mask is not None and inside.step > 1:
            self.repeat(models, inside, before)
        state.inside, state.done = inside, state.done | inside.done
        return state

    def repeat(self, models: Models, inside: RefinementState, before: Memory) -> None:
        """Take back and repeat the step of rows with given cells; other rows stay as they are. Writes into the state.

        before: what the sampler remembered before the step.
        """
        assert inside.mask is not None
        seeds, x, clean = inside.seeds, inside.x, inside.memory.clean
        for number in range(1, self.repeats):
            self.back(models["model"].path, inside, mix(mix(seeds + GOLDEN) + number))
            inside.memory = replace(before, evaluations=inside.memory.evaluations)
            self.refinement.advance(models, inside)
        given_B1 = inside.mask.any(1, keepdim=True)
        inside.seeds = seeds
        inside.x = torch.where(given_B1, inside.x, x)
        inside.memory.clean = torch.where(given_B1, inside.memory.clean, clean)

    def back(self, path: NoisePath, inside: RefinementState, seeds: Tensor) -> None:
        """Take back a step, with new noise. Writes into the state."""
        inside.step -= 1
        t, s = self.refinement.times(path)[inside.step : inside.step + 2]
        (a_t, sigma_t), (a_s, sigma_s) = levels(path, t), levels(path, s)
        inside.seeds, inside.done = seeds, torch.zeros_like(inside.done)
        fresh = normal_at(seeds, 2 * self.steps + 1 + inside.step, *self.refinement.space.shape)
        rest = max(0.0, sigma_t**2 - (a_t / a_s * sigma_s) ** 2)
        inside.x = a_t / a_s * inside.x + math.sqrt(rest) * fresh

    def draft(self, state: RowState) -> Draft:
        """The clean estimate as rows, and at the end the rows themselves."""
        draft = self.refinement.draft(state.inside)
        cells_BC = self.code.decode(draft.sample, state.label, self.missing)
        cells_BC = torch.where(state.given, state.cells, cells_BC)
        committed_BC = state.given | state.inside.done[:, None]
        return Draft(cells_BC, committed_BC, state.done, draft.evaluations)
