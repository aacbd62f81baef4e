"""A denoiser: a network, the noise path it inverts, and the target it predicts.

The network maps a picture scaled to unit variance, a clock and a label to a picture; the denoiser converts that output
to the clean picture and the noise. Networks: a perceptron (perceptron.py), a U-Net (unet.py), a transformer (dit.py).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from sanbu.models.model import ModelConfig, PictureConfig, one_picture
from sanbu.paths import TARGETS, LinearPath, NoisePath, Pair, TargetName, solve, spread
from sanbu.space import Space


class PathConfig(ModelConfig):
    """A network with its noise path and prediction target."""

    family: ClassVar[str] = "denoiser"
    path: NoisePath = LinearPath()
    target: TargetName = Field("velocity", description="what the network predicts")
    deviation: float = Field(0.5, gt=0, description="standard deviation of the data, for target=preconditioned")

    def check(self, space: Space) -> None:
        if isinstance(self.path, LinearPath) and self.target == "noise":
            raise ValueError(
                "model.target: given noise, but at the noisy end of the linear path x_t is the noise; use velocity"
            )

    def network(self, space: Space) -> nn.Module:
        """The network alone."""
        raise NotImplementedError

    def build(self, space: Space) -> nn.Module:
        return Denoiser(self.network(space), self)


class DenoiserConfig(PathConfig, PictureConfig):
    """A network for pictures."""

    def check(self, space: Space) -> None:
        PictureConfig.check(self, space)
        PathConfig.check(self, space)

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture, picture.new_ones(1), label


class Denoiser(nn.Module):
    """A network with its noise path, its target, and the deviation of the data (for target=preconditioned)."""

    def __init__(self, network: nn.Module, config: PathConfig) -> None:
        super().__init__()
        self.network = network
        self.path: NoisePath = config.path
        self.target, self.deviation = config.target, config.deviation

    def forward(self, x_BCHW: Tensor, t_B: Tensor, label_B: Tensor) -> Tensor:
        """The network's prediction of its target at x_t."""
        if self.target == "preconditioned":
            variance_B = (self.path.alpha(t_B) * self.deviation) ** 2 + self.path.sigma(t_B) ** 2
            x_BCHW = x_BCHW * spread(variance_B.rsqrt(), x_BCHW)
        return self.network(x_BCHW, self.path.clock(t_B), label_B).to(t_B.dtype)

    def factors(self, t_B: Tensor) -> Pair:
        """The factors (c_x, c_e) of the target c_x x + c_e e."""
        return TARGETS[self.target](self.path, t_B, self.deviation)

    def estimate(self, x_BCHW: Tensor, t_B: Tensor, label_B: Tensor) -> Pair:
        """The clean picture and the noise that follow from the prediction."""
        return solve(self.path, self.factors(t_B), x_BCHW, self(x_BCHW, t_B, label_B), t_B)
