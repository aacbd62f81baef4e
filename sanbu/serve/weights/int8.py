"""Linear layers whose weights are whole numbers of eight bits: a quarter of the memory to read for every token.

One scale for each output, the largest weight being 127 (weight-only quantization; Dettmers and others, 2022,
arXiv:2208.07339 sec. 2). Activations stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanbu.serve.weights.replace import replaced

ROWS = 64  # up to so many rows reading the weights is what takes time; beyond, the products are


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
        """Of x_...I, ...O in the type of x."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > ROWS or x.device.type != "cpu":
            found = F.linear(rows, self.whole.to(x.dtype)) * self.scale.to(x.dtype)
        else:
            found = torch._weight_int8pack_mm(rows.bfloat16(), self.whole, self.scale.bfloat16()).to(x.dtype)
        return (found if self.bias is None else found + self.bias).view(*x.shape[:-1], -1)


def quantized(model: nn.Module) -> nn.Module:
    """The same model, every plain linear layer of it in eight bits; embeddings stay, and layers that do more."""
    return replaced(model, Int8Linear, lambda linear: True)
