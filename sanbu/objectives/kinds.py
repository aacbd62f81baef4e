"""The kinds of step 2: how good a function is. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sanbu.config import Choice

if TYPE_CHECKING:
    from torch import Tensor

    from sanbu.noise import Noise
    from sanbu.objectives.objective import Objective
    from sanbu.paths import Path


class ObjectiveConfig(Choice):
    """Step 2: what makes one function good."""

    families: ClassVar[tuple[str, ...]] = ()  # of models it can judge; none named: any

    def build(self) -> Objective:
        raise NotImplementedError

    def needs(self) -> tuple[str, ...]:
        """The parents it cannot do without."""
        return ()


class NextToken(ObjectiveConfig):
    """Cross-entropy of the next token."""

    kind: Literal["next-token"] = "next-token"
    families: ClassVar[tuple[str, ...]] = ("tokens",)

    def build(self) -> Objective:
        from sanbu.objectives.next_token import next_token

        return next_token()


class ChunkedNextToken(ObjectiveConfig):
    """Cross-entropy of the next token that never holds all logits: for large vocabularies."""

    kind: Literal["next-token-chunked"] = "next-token-chunked"
    families: ClassVar[tuple[str, ...]] = ("tokens",)
    chunk: int = Field(1024, ge=1, description="tokens whose logits exist at once")

    def build(self) -> Objective:
        from sanbu.objectives.next_token import next_token_chunked

        return next_token_chunked(self.chunk)


# -- pictures: likelihood and its bounds -----------------------------------------------------------------------------------


class Likelihood(ObjectiveConfig):
    """Exact likelihood of every level; bits per dimension."""

    kind: Literal["likelihood"] = "likelihood"
    families: ClassVar[tuple[str, ...]] = ("pixels",)

    def build(self) -> Objective:
        from sanbu.objectives.likelihood import likelihood

        return likelihood()


class Elbo(ObjectiveConfig):
    """The evidence lower bound of a latent variable model."""

    kind: Literal["elbo"] = "elbo"
    families: ClassVar[tuple[str, ...]] = ("latent",)
    weight: float = Field(1.0, gt=0, description="of the KL term; 1 is the bound")

    def build(self) -> Objective:
        from sanbu.objectives.bound import elbo

        return elbo(self.weight)


class ImportanceWeighted(ObjectiveConfig):
    """The importance-weighted bound, tighter with every draw."""

    kind: Literal["importance-weighted"] = "importance-weighted"
    families: ClassVar[tuple[str, ...]] = ("latent",)
    draws: int = Field(16, ge=1, description="latents a row")

    def build(self) -> Objective:
        from sanbu.objectives.bound import importance_weighted

        return importance_weighted(self.draws)


# -- pictures: games -------------------------------------------------------------------------------------------------------


class AdversarialConfig(ObjectiveConfig):
    """What the games have in common."""

    families: ClassVar[tuple[str, ...]] = ("generator",)
    augment: tuple[Literal["colour", "shift", "cutout"], ...] = Field(
        (), description="DiffAugment: changes made to real and generated pictures alike"
    )


class NonSaturating(AdversarialConfig):
    """The non-saturating game with an R1 penalty."""

    kind: Literal["non-saturating"] = "non-saturating"
    r1: float = Field(0.1, ge=0, description="weight of the penalty")
    every: int = Field(4, ge=1, description="rounds between penalties, on average")

    def build(self) -> Objective:
        from sanbu.objectives.adversarial import non_saturating

        return non_saturating(self.r1, self.every, self.augment)


class Hinge(AdversarialConfig):
    """The hinge game with an R1 penalty."""

    kind: Literal["hinge"] = "hinge"
    r1: float = Field(0.1, ge=0, description="weight of the penalty")
    every: int = Field(4, ge=1, description="rounds between penalties, on average")

    def build(self) -> Objective:
        from sanbu.objectives.adversarial import hinge

        return hinge(self.r1, self.every, self.augment)


class Wasserstein(AdversarialConfig):
    """The Wasserstein game with a gradient penalty."""

    kind: Literal["wasserstein"] = "wasserstein"
    penalty: float = Field(10.0, gt=0, description="weight of the gradient penalty")
    critic_steps: int = Field(5, ge=1, description="critic turns a round")

    def build(self) -> Objective:
        from sanbu.objectives.adversarial import wasserstein

        return wasserstein(self.penalty, self.critic_steps, self.augment)


# -- pictures: denoising ---------------------------------------------------------------------------------------------------


class TimesConfig(Choice):
    """Which times of a path training dwells on."""

    def draw(self, path: Path, noise: Noise, rows: int) -> Tensor:
        """A time a row, float32."""
        raise NotImplementedError


class Uniform(TimesConfig):
    """Evenly along the path."""

    kind: Literal["uniform"] = "uniform"

    def draw(self, path: Path, noise: Noise, rows: int) -> Tensor:
        return path.place(noise.uniform(rows))


class LogitNormal(TimesConfig):
    """sigmoid(mean + deviation n) along the path: more in the middle (Esser and others, 2024)."""

    kind: Literal["logit-normal"] = "logit-normal"
    mean: float = 0.0
    deviation: float = Field(1.0, gt=0)

    def draw(self, path: Path, noise: Noise, rows: int) -> Tensor:
        return path.place((self.mean + self.deviation * noise.normal(rows)).sigmoid())


class LogNormal(TimesConfig):
    """Where sigma / alpha is exp(mean + deviation n) (Karras and others, 2022)."""

    kind: Literal["log-normal"] = "log-normal"
    mean: float = -1.2
    deviation: float = Field(1.2, gt=0)

    def draw(self, path: Path, noise: Noise, rows: int) -> Tensor:
        return path.time_at((self.mean + self.deviation * noise.normal(rows)).exp())


class Denoising(ObjectiveConfig):
    """The weighted squared error of what a denoiser predicts: diffusion and flow matching."""

    kind: Literal["denoising"] = "denoising"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    weighting: Literal["uniform", "min-snr", "edm"] = Field("uniform", description="of the error by time")
    times: TimesConfig = Uniform()

    def build(self) -> Objective:
        from sanbu.objectives.denoising import denoising

        return denoising(self.weighting, self.times)


class Consistency(ObjectiveConfig):
    """The same clean picture from every time of a path: one step is enough to draw."""

    kind: Literal["consistency"] = "consistency"
    families: ClassVar[tuple[str, ...]] = ("denoiser",)
    times: TimesConfig = LogNormal(mean=-1.1, deviation=2.0)
    stage: int = Field(500, ge=1, description="rounds until the gap of times shrinks again")
    shrink: float = Field(2.0, gt=1, description="how much it shrinks")
    huber: float = Field(0.00054, ge=0, description="constant of the pseudo-Huber error, a root of the pixels")

    def build(self) -> Objective:
        from sanbu.objectives.consistency import consistency

        return consistency(self.times, self.stage, self.shrink, self.huber)
