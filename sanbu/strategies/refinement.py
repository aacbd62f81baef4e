"""N refinements: from noise to a picture along the model's path; each draft is the clean estimate.

Guidance: D + (w - 1) (D - D_ref), where the reference is the model without label (Ho and Salimans, 2021) or a weaker
model, parents.guide (Karras and others, 2024). Known pixels are put back at each step with the step's own noise
(Lugmayr and others, 2022). With `clip`, D is clamped to the pixels; the noise follows from it, except under DDIM, which
keeps the noise that the network predicts (as `DDIMScheduler` in diffusers does).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.noise import normal_at
from sanbu.paths import NoisePath
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.samplers import SAMPLERS, Memory, levels
from sanbu.strategies.strategy import Strategy, StrategyConfig


@dataclass
class RefinementState:
    """x_BCHW at step `step` of the grid; memory: of the sampler."""

    x: Tensor
    label: Tensor
    seeds: Tensor
    done: Tensor
    memory: Memory
    known: Tensor | None
    mask: Tensor | None
    step: int = 0


class Refinement(StrategyConfig):
    """A picture in N refinements, from noise to clean along the model's path."""

    kind: Literal["refinement"] = "refinement"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    sampler: Literal["ancestral", "ddim", "euler", "heun", "dpm-solver", "consistency"] = Field(
        "ddim", description="rule of one step"
    )
    steps: int = Field(
        50, ge=1, le=100_000, description="number of steps, at most those of a chain such as model.path=betas"
    )
    guidance: float = Field(
        1.0, ge=0, description="guidance scale of the label, or over the weaker model parents.guide; 1 disables"
    )
    clip: bool = Field(False, description="clamp the clean estimate of each step to the range of pixels")

    def check(self, space: Space) -> None:
        if space.code is not None:
            raise ValueError("strategy: 'refinement' draws the code of a row of a table; set strategy=row-refinement")
        if self.guidance != 1 and not space.classes:
            raise ValueError(
                f"strategy.guidance: given {self.guidance:g}, but the run is unconditional: it has no labels"
            )
        if self.guidance != 1 and not space.unlabelled:
            raise ValueError(
                f"strategy.guidance: given {self.guidance:g}, but the run never sees a row without label;"
                " train with data.drop_label=0.1"
            )

    def check_path(self, path: NoisePath) -> None:
        chain = path.most_steps()
        if chain is None:
            return
        most = chain - 1 if self.sampler == "consistency" else chain  # which skips the faintest noise
        if self.steps > most:
            how = f" with sampler={self.sampler}" if most < chain else ""
            raise ValueError(
                f"strategy.steps: given {self.steps}, allowed{how}: 1 to {most}, because the chain of the model has"
                f" {chain} steps (model.path.steps)"
            )

    def build(self, space: Space) -> Strategy:
        return RefinementStrategy(self, space)


class RefinementStrategy:
    """Walks the path's grid."""

    def __init__(self, config: Refinement, space: Space) -> None:
        self.config, self.space = config, space
        self.sampler = SAMPLERS[config.sampler]

    def begin(self, condition: Batch, seeds: Tensor) -> RefinementState:
        """From label_B, and known_BCHW under mask_BCHW where part of the picture is given."""
        x = normal_at(seeds, 0, *self.space.shape)
        done = torch.zeros_like(seeds, dtype=torch.bool)
        known = condition.get("known")
        if known is not None and self.space.vocabulary:
            known = known.float() * (2 / (self.space.vocabulary - 1)) - 1
        return RefinementState(
            x, condition["label"], seeds, done, Memory(torch.zeros_like(x)), known, condition.get("mask")
        )

    def advance(self, models: Models, state: RefinementState) -> RefinementState:
        """One refinement. Writes into the state."""
        path, shape = models["model"].path, self.space.shape
        if state.step == 0:
            self.config.check_path(path)
        times = self.times(path)
        t, s = times[state.step], times[state.step + 1]
        if state.step == 0:
            state.x = state.x * levels(path, t)[1]
        fresh = partial(normal_at, state.seeds, 2 * state.step + 1, *shape)
        denoise = partial(self._denoise, models, state)
        state.x = self.sampler(denoise, path, state.x, t, s, state.memory, fresh)
        if state.mask is not None and state.known is not None:
            a, sigma = levels(path, s)
            noise = normal_at(state.seeds, 2 * state.step + 2, *shape)
            given = a * state.known + sigma * noise
            state.x = torch.where(state.mask, given, state.x)
        state.step += 1
        state.done = state.done | (state.step == self.config.steps)
        return state

    def draft(self, state: RefinementState) -> Draft:
        """The clean estimate, and at the end the picture itself."""
        last = state.step == self.config.steps
        committed = torch.full_like(state.x, last, dtype=torch.bool)
        evaluations = torch.full_like(state.seeds, state.memory.evaluations)
        return Draft(state.x if last else state.memory.clean, committed, state.done, evaluations)

    def times(self, path: NoisePath) -> list[float]:
        """The times of the steps, from noise to clean."""
        steps = self.config.steps
        if self.config.sampler != "consistency":
            return path.grid(steps).tolist()
        return [*path.grid(steps + 1).tolist()[:-2], 0.0]  # a step at the faintest noise would do nothing

    def _denoise(self, models: Models, state: RefinementState, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The clean picture and the noise in x_t, guided where asked."""
        model, weight = models["model"], self.config.guidance
        time_B = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
        state.memory.evaluations += 1 if weight == 1 else 2
        if weight == 1:
            clean, noise = model.estimate(x, time_B, state.label)
        elif "guide" in models:
            clean, noise = model.estimate(x, time_B, state.label)
            weaker, _ = models["guide"].estimate(x, time_B, state.label)
            clean = clean + (weight - 1) * (clean - weaker)
        else:
            nothing = torch.full_like(state.label, self.space.classes)
            labels = torch.cat((state.label, nothing))
            both, _ = model.estimate(torch.cat((x, x)), time_B.repeat(2), labels)
            conditional, unconditional = both.chunk(2)
            clean = conditional + (weight - 1) * (conditional - unconditional)
        a, sigma = levels(model.path, t)
        if weight != 1:
            noise = (x - a * clean) / sigma
        if self.config.clip:
            clean = clean.clamp(-1, 1)
            if self.config.sampler != "ddim":
                noise = (x - a * clean) / sigma
        return clean, noise
