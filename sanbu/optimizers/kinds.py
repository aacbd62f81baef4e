"""The kinds of step 3: how the best function is found. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from sanbu.config import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from sanbu.layers.average import Following
    from sanbu.optimizers.search import Search

Auto = Literal["auto"]
Rate = Annotated[float, Field(gt=0)]


class RateConfig(Choice):
    """How the learning rate moves over a run, as a factor of its peak."""

    def build(self, steps: int) -> Callable[[int], float]:
        raise NotImplementedError


class Constant(RateConfig):
    """Warm up linearly, then stay."""

    kind: Literal["constant"] = "constant"
    warmup: float = Field(0.0, ge=0, le=1, description="fraction of the steps spent warming up")

    def build(self, steps: int) -> Callable[[int], float]:
        from sanbu.optimizers.rate import constant

        return constant(steps, self.warmup)


class Linear(RateConfig):
    """Warm up linearly, hold, then cool down linearly."""

    kind: Literal["linear"] = "linear"
    warmup: float = Field(0.02, ge=0, le=1, description="fraction of the steps spent warming up")
    hold: float = Field(0.0, ge=0, le=1, description="fraction of the steps at the peak")
    final: float = Field(0.0, ge=0, le=1, description="last rate as a fraction of the peak")

    def build(self, steps: int) -> Callable[[int], float]:
        from sanbu.optimizers.rate import linear

        return linear(steps, self.warmup, self.hold, self.final)


class Cosine(RateConfig):
    """Warm up linearly, then follow half a cosine (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = Field(0.02, ge=0, le=1, description="fraction of the steps spent warming up")
    final: float = Field(0.1, ge=0, le=1, description="last rate as a fraction of the peak")

    def build(self, steps: int) -> Callable[[int], float]:
        from sanbu.optimizers.rate import cosine

        return cosine(steps, self.warmup, self.final)


class OptimizerConfig(Choice):
    """Step 3: a search for one player's best function."""

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        """The search over the parameters of these modules, for a run of so many rounds."""
        raise NotImplementedError


class SGD(OptimizerConfig):
    """Stochastic gradient descent with momentum (Robbins and Monro, 1951; Polyak, 1964)."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    rate: RateConfig = Constant()

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        from sanbu.optimizers.gradient import sgd

        return sgd(self, models, steps)


class Adam(OptimizerConfig):
    """Adaptive moments (Kingma and Ba, 2015)."""

    kind: Literal["adam"] = "adam"
    learning_rate: Rate | Auto = "auto"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    rate: RateConfig = Constant()

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        from sanbu.optimizers.gradient import adam

        return adam(self, models, steps)


class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); vectors are not decayed."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Rate | Auto = "auto"
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm")
    rate: RateConfig = Cosine()
    roles: dict[str, float] = Field({}, description="factor of the learning rate by role: embedding, head, matrix, vector")

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        from sanbu.optimizers.gradient import adamw

        return adamw(self, models, steps)


class Muon(OptimizerConfig):
    """Orthogonalised momentum for matrices (Jordan and others, 2024), AdamW for the rest."""

    kind: Literal["muon"] = "muon"
    learning_rate: float = Field(0.02, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    rate: RateConfig = Linear()
    rest: AdamW = AdamW(weight_decay=0.0, clip=None, rate=Linear())

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        from sanbu.optimizers.gradient import muon

        return muon(self, models, steps)


class AverageConfig(Choice):
    """An average of the model's weights over the run, kept beside it and sampled from."""

    def build(self, model: nn.Module) -> Following:
        raise NotImplementedError


class Exponential(AverageConfig):
    """Exponential moving average of the weights."""

    kind: Literal["exponential"] = "exponential"
    decay: float = Field(0.999, ge=0, lt=1)

    def build(self, model: nn.Module) -> Following:
        from sanbu.layers.average import Average

        return Average(model, self.decay)


class PowerFunction(AverageConfig):
    """Averages whose length grows with the run, kept at each checkpoint: `sanbu average RUN` makes any other length of them."""

    kind: Literal["power-function"] = "power-function"
    lengths: tuple[float, float] = Field(
        (0.05, 0.1), description="deviations of the weights, fractions of the run; the first is drawn from"
    )

    @field_validator("lengths", mode="after")
    @classmethod
    def _possible(cls, lengths: tuple[float, float]) -> tuple[float, float]:
        if not all(0 < length < 0.28 for length in lengths) or lengths[0] == lengths[1]:
            raise ValueError("two different lengths between 0 and 0.28 are needed")
        return lengths

    def build(self, model: nn.Module) -> Following:
        from sanbu.layers.average import PowerAverage

        return PowerAverage(model, self.lengths)
