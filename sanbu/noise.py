"""Random numbers as pure functions of a key (seed, purpose, step), so that no generator state has to be saved.

Row i of a draw depends on (seed, purpose, step, row i, draw) alone: not on the batch it stands in, the micro-batch,
the rank or the device. The generator is SplitMix64 in counter mode (Steele, Lea and Flood, 2014), written in wrapping
int64.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the odd number nearest to 2^64 / golden ratio
MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer: a bijection of int64 whose outputs look independent. Any shape."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def mix_int(x: int) -> int:
    """`mix` for one Python integer; returns a signed 64-bit integer."""
    mask = (1 << 64) - 1
    x &= mask
    x = ((x ^ (x >> 30)) * (MIX_1 & mask)) & mask
    x = ((x ^ (x >> 27)) * (MIX_2 & mask)) & mask
    x ^= x >> 31
    return x - (1 << 64) if x >> 63 else x


def key(*parts: int | str) -> int:
    """One signed 64-bit key from integers and words; the order matters."""
    state = 0
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        state = mix_int(state + GOLDEN + mix_int(number))
    return state


def uniform_at(keys: Tensor, counter: Tensor) -> Tensor:
    """One uniform in (0, 1), float64, for each pair of int64 key and counter (broadcast together)."""
    bits = (mix(mix(keys + GOLDEN) + counter * GOLDEN) >> 11) & ((1 << 53) - 1)  # mix(0) is 0, and 0 is a usual seed
    return (bits.double() + 0.5) * (1.0 / (1 << 53))


def normal_at(seeds_B: Tensor, draw: int, *shape: int) -> Tensor:
    """Standard normals [B, *shape], float32, for each seed and number of the draw (Box and Muller, 1958)."""
    size = math.prod(shape)
    counter = torch.arange(2 * size, device=seeds_B.device) + 2 * size * draw
    first, second = uniform_at(seeds_B[:, None], counter).chunk(2, 1)
    radius = (-2.0 * first.log()).sqrt()
    normal = radius * torch.cos(2.0 * math.pi * second)
    return normal.float().view(-1, *shape)


def normal_in_order(seeds_B: Tensor, count: int, width: int) -> Tensor:
    """Standard normals [B, count, width], float32; an item is the same whatever the count is."""
    counter = torch.arange(2 * count * width, device=seeds_B.device)
    pairs = uniform_at(seeds_B[:, None], counter).view(-1, count, 2, width)
    first, second = pairs.unbind(2)
    return ((-2.0 * first.log()).sqrt() * torch.cos(2.0 * math.pi * second)).float()


class Noise:
    """Random numbers for one purpose. `normal` and `uniform` give row i what row i would get alone."""

    def __init__(self, *purpose: int | str, first_row: int = 0, device: torch.device | str = "cpu") -> None:
        self.key = key(*purpose)
        self.first_row = first_row
        self.device = torch.device(device)
        self.draws = 0

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in (0, 1), float32; axis 0 is the row."""
        return self._uniform(shape).float().clamp_(max=1 - 2**-24)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32, by Box and Muller (1958); axis 0 is the row."""
        radius = (-2.0 * self._uniform(shape).log()).sqrt()
        return (radius * torch.cos(2.0 * math.pi * self._uniform(shape))).float()

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers 0 .. high - 1, int64; axis 0 is the row."""
        return (self._uniform(shape) * high).long().clamp_(max=high - 1)

    def together(self) -> Together:
        """Numbers that all rows, micro-batches and ranks share: shuffles and coins."""
        self.draws += 1
        return Together(mix_int(self.key + self.draws * GOLDEN), self.device)

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        self.draws += 1
        rows = torch.arange(self.first_row, self.first_row + shape[0], device=self.device)
        row_keys = mix(rows * GOLDEN + mix_int(self.key + self.draws * GOLDEN))
        numbers = torch.arange(math.prod(shape[1:]), device=self.device)
        return uniform_at(row_keys[:, None], numbers[None, :]).view(shape)


class Together:
    """Draws shared by all rows of a step."""

    def __init__(self, key: int, device: torch.device | str = "cpu") -> None:
        self.noise = Noise(key, device=device)

    def permutation(self, count: int) -> Tensor:
        """A random order of 0 .. count - 1, int64."""
        return self.noise._uniform((1, count))[0].argsort()

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in (0, 1), float32."""
        return self.noise.uniform(1, *shape)[0]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32."""
        return self.noise.normal(1, *shape)[0]

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers 0 .. high - 1, int64."""
        return self.noise.integers(high, 1, *shape)[0]
