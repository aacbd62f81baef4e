"""A convolutional network that draws a picture again from a view of it: pretraining without labels.

The trunk is that of the kind `cnn`, without its head; a picture is drawn from its last layer, which has few pixels of
many channels, by one linear map per pixel that gives a square of pixels (Shi and others, 2016). A classifier of kind
`cnn` begins from the trunk: parents.model=RUN.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sanbu.models.predictors.cnn import SLOPE, TrunkConfig, convolutions
from sanbu.space import Space


class Reconstructor(TrunkConfig):
    """The convolutions of `cnn`, and a picture drawn from their last layer."""

    kind: Literal["cnn-reconstructor"] = "cnn-reconstructor"

    def build(self, space: Space) -> nn.Module:
        return ReconstructorNetwork(self, space)


class ReconstructorNetwork(nn.Module):
    """x_BCHW -> a picture of the same shape."""

    def __init__(self, config: Reconstructor, space: Space) -> None:
        super().__init__()
        channels, self.height, self.width = space.shape
        wide, times = config.width * config.multipliers[-1], 2 ** (len(config.multipliers) - 1)
        self.trunk = convolutions(channels, config.width, config.multipliers, config.groups)
        self.around = nn.Conv2d(wide, wide, 3, padding=1)
        self.activation = nn.LeakyReLU(SLOPE)
        self.drawn = nn.Conv2d(wide, channels * times * times, 1)
        self.square = nn.PixelShuffle(times)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.activation(self.around(self.trunk(x_BCHW)))
        return self.square(self.drawn(h))[:, :, : self.height, : self.width]
