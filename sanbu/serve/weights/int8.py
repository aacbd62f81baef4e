"""Linear layers with int8 weights: a quarter of the memory of float32 to read per token.

Weight-only quantization with one scale per output, absmax to 127 (Dettmers and others, 2022, arXiv:2208.07339 sec. 2).
Activations are not quantized.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbu.serve.weights.replace import replace_linears

ROWS = 64  # up to this many rows the layer is memory-bound, above it compute-bound
INPUTS = 16  # the kernel of torch reads so many inputs at a time, also beyond the end of a row


class Int8Linear(nn.Module):
    """y = x W^T + b with W_OI = whole_OI * scale_O."""

    whole: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("whole", (weight / scale[:, None]).round().to(torch.int8).contiguous())
        self.register_buffer("scale", scale)
        self.bias, self.out_features = linear.bias, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """x_...I to y_...O in the dtype of x."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > ROWS or rows.shape[1] % INPUTS or x.device.type != "cpu":
            found = F.linear(rows, self.whole.to(x.dtype)) * self.scale.to(x.dtype)
        else:
            found = torch._weight_int8pack_mm(rows.bfloat16(), self.whole, self.scale.bfloat16()).to(x.dtype)
        return (found if self.bias is None else found + self.bias).view(*x.shape[:-1], -1)


def quantize(model: nn.Module) -> nn.Module:
    """Quantize every nn.Linear in place; embeddings and subclasses of nn.Linear are kept. Returns the model."""
    return replace_linears(model, Int8Linear, lambda linear: True)
