"""Linear layers packed in oneDNN's tiled layout: products of few rows and of many are up to twice as fast.

What is computed is the same y = x W^T + b; only the order of the weights in memory is another. In bfloat16 they are
half as large, and so is the time to read them, where the processor has products of that type.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.serve.weights.replace import replaced

SMALLEST = 1 << 18  # weights; what a smaller layer gains is lost again in calling oneDNN
ROWS = 8  # the batch that the tiles are chosen for; they serve 1 to 512 rows about as well


class PackedLinear(nn.Module):
    """An nn.Linear of float32 on a CPU, to be called and not to be trained; its products are made in `dtype`."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype, self.out_features = dtype, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype).contiguous(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Of x_...I, ...O in the type of x."""
        product = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return product.to(x.dtype)


def packed(model: nn.Module) -> nn.Module:
    """The same model with large linear layers packed, where that is faster here; embeddings keep their matrix."""
    large = any(type(module) is nn.Linear and packs(module) for module in model.modules())
    return replaced(model, PackedLinear, packs) if large and packing_pays() else model


def halved(model: nn.Module) -> nn.Module:
    """A float32 model with large linear layers in packed bfloat16. Raises SanbuError without processor support."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise SanbuError("weights in bfloat16 need a processor with products of that type, and this one has none")
    return replaced(model, lambda linear: PackedLinear(linear, torch.bfloat16), packs)


def packs(linear: nn.Linear) -> bool:
    """Whether a layer can be packed and is large enough to gain by it."""
    weight = linear.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= SMALLEST


@lru_cache
def packing_pays() -> bool:
    """Is a packed product of few rows at least 10% faster here? Measured once, in 0.1 s, beyond the cache size."""
    if not torch.backends.mkldnn.is_available():
        return False
    linears = [nn.utils.skip_init(nn.Linear, 1024, 1024) for _ in range(16)]
    x = torch.ones(4, 1024)

    def seconds(layers: Sequence[nn.Module]) -> float:
        best = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            for layer in layers:
                layer(x)
            best = min(best, time.perf_counter() - begun)
        return best

    with torch.inference_mode():
        for linear in linears:
            linear.weight.fill_(1.0), linear.bias.fill_(1.0)
        return seconds(linears) > 1.1 * seconds([PackedLinear(linear) for linear in linears])
