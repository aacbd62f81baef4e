"""The kinds of strategy: how a sample is drawn. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sanbu.config import Choice

if TYPE_CHECKING:
    from sanbu.data.kinds import Space
    from sanbu.strategies.strategy import Strategy


class StrategyConfig(Choice):
    """How samples are drawn from a function once it is found."""

    families: ClassVar[tuple[str, ...]] = ()  # of models it can draw from; none named: any

    def check(self, space: Space) -> None:
        """Raise ValueError, in one line, when samples of the space cannot be drawn like this."""

    def build(self, space: Space) -> Strategy:
        raise NotImplementedError


class Autoregressive(StrategyConfig):
    """Token by token, left to right, with a key-value cache."""

    kind: Literal["autoregressive"] = "autoregressive"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    max_tokens: int = Field(128, ge=1, description="new tokens at most")
    temperature: float = Field(1.0, ge=0, description="0 takes the most likely token")
    top_k: int = Field(0, ge=0, description="keep the k most likely tokens; 0 keeps all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the smallest set with this probability")
    min_p: float = Field(0.0, ge=0, le=1, description="keep tokens at least this fraction as likely as the best")
    repetition_penalty: float = Field(1.0, gt=0, description="divides the logits of tokens already there; 1 is none")
    stop: tuple[str, ...] = Field((), description="texts that end a sample; they are not shown")
    prefill: int = Field(512, ge=1, description="prompt tokens through the model at once")

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.autoregressive import AutoregressiveStrategy

        return AutoregressiveStrategy(self, space)


class BeamSearch(StrategyConfig):
    """The most likely continuation among `beams` kept at each token."""

    kind: Literal["beam-search"] = "beam-search"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    max_tokens: int = Field(128, ge=1, description="new tokens at most")
    beams: int = Field(4, ge=1, description="hypotheses kept a row")
    length_penalty: float = Field(0.0, description="scores are divided by length to this power")
    stop: tuple[str, ...] = Field((), description="texts that end a sample; they are not shown")
    prefill: int = Field(512, ge=1, description="prompt tokens through the model at once")

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.beam import BeamSearcher

        return BeamSearcher(self, space)


class Prediction(StrategyConfig):
    """No drawing: what a model that scores says of its input."""

    kind: Literal["prediction"] = "prediction"
    families: ClassVar[tuple[str, ...]] = ("scorer",)

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.prediction import PredictionStrategy

        return PredictionStrategy()


class PixelByPixel(StrategyConfig):
    """A picture level by level, rows from above, each level from its law given those before; activations are kept."""

    kind: Literal["pixel-by-pixel"] = "pixel-by-pixel"
    families: ClassVar[tuple[str, ...]] = ("pixels",)
    temperature: float = Field(1.0, ge=0, description="0 takes the most likely level")

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.pixels import PixelByPixelStrategy

        return PixelByPixelStrategy(self, space)


class OneShot(StrategyConfig):
    """A picture at once, from noise."""

    kind: Literal["one-shot"] = "one-shot"
    families: ClassVar[tuple[str, ...]] = ("latent", "generator")
    temperature: float = Field(1.0, ge=0, description="deviation of the noise")

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.one_shot import OneShotStrategy

        return OneShotStrategy(self, space)


class Refinement(StrategyConfig):
    """A picture in N refinements, from noise to clean along the model's path."""

    kind: Literal["refinement"] = "refinement"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    sampler: Literal["ancestral", "ddim", "euler", "heun", "dpm-solver", "consistency"] = Field(
        "ddim", description="how one step goes"
    )
    steps: int = Field(50, ge=1, description="refinements")
    guidance: float = Field(1.0, ge=0, description="weight of the label, or of the model over parents.guide; 1 is none")
    clip: bool = Field(False, description="keep the clean picture of each step within its range")

    def check(self, space: Space) -> None:
        if self.guidance != 1 and not space.classes:
            raise ValueError(
                f"strategy.guidance: given {self.guidance:g}, but the run is unconditional: it has no labels to be guided by"
            )
        if self.guidance != 1 and not space.unlabelled:
            raise ValueError(
                f"strategy.guidance: given {self.guidance:g}, but the run never sees a row without label; train with data.drop_label=0.1"
            )

    def build(self, space: Space) -> Strategy:
        from sanbu.strategies.refinement import RefinementStrategy

        return RefinementStrategy(self, space)
