"""Linear layers packed in oneDNN's tiled layout, which makes products up to twice as fast.

The result is the same y = x W^T + b; only the order of the weights in memory differs. In bfloat16, which the processor
must support, they take half the memory and half the time to read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.models.tokens.transformer import Decoder
from sanbu.serve.weights.replace import replace_linears

SMALLEST = 1 << 18  # number of weights; smaller layers lose more in the call of oneDNN than they gain
ROWS = 8  # batch size that the tiles are chosen for; they suit 1 to 512 rows about equally


class PackedLinear(nn.Module):
    """A float32 nn.Linear on a CPU, for inference only; it computes in `dtype`."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype, self.out_features = dtype, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype).contiguous(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x_...I to y_...O in the dtype of x."""
        product = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return product.to(x.dtype)


def pack(model: nn.Module) -> nn.Module:
    """Pack large linear layers in place if that is faster on this machine; embeddings stay. Returns the model."""
    large = any(type(module) is nn.Linear and can_pack(module) for module in model.modules())
    return replace_linears(model, PackedLinear, can_pack) if large and packing_pays() else model


def pack_bfloat16(model: Decoder) -> nn.Module:
    """Pack large float32 linear layers in bfloat16, in place, and keep keys and values in it: half as much to read.

    Raises SanbuError without processor support.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise SanbuError(
            "bfloat16 weights need a processor that supports bfloat16, which this one does not; use full or int8"
        )
    model.cached = torch.bfloat16
    return replace_linears(model, lambda linear: PackedLinear(linear, torch.bfloat16), can_pack)


def can_pack(linear: nn.Linear) -> bool:
    """Whether a layer can be packed and is large enough to gain from it."""
    weight = linear.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= SMALLEST


@lru_cache
def packing_pays() -> bool:
    """Whether packed products of few rows are at least 10% faster on this machine. Measured once, in 0.1 s."""
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
