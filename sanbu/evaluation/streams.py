"""Loss on a text as one stream: every token with as much of the text before it as the model can use.

A model whose state has a fixed size reads the stream and carries its state along. A transformer reads windows of its
context that overlap by half, and only the second half of each but the first is scored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.data.text_rows import TextRows
from sanbu.space import IGNORED

LANES, PIECE = 16, 256  # pieces of the text that are read side by side; tokens per call
AT_ONCE = 128  # windows per call


@torch.no_grad()
def stream_loss(model: Any, data: TextRows) -> float | None:
    """Nats per token of the held-out text of some data; None where it has several documents."""
    if not data.single_document:
        return None
    stream = torch.from_numpy(data.shards.held_out.astype("int64"))
    if model.context >= len(stream):
        return carried(model, stream)
    return overlapping(model, stream, data.context)


def carried(model: Any, stream: Tensor) -> float:
    """With the state carried along, in lanes; each lane begins without a state."""
    size = -(-(len(stream) - 1) // LANES)
    places = torch.arange(LANES)[:, None] * size + torch.arange(size + 1)
    missing = LANES * size + 1 - len(stream)
    whole = F.pad(stream, (0, missing), value=IGNORED)[places]
    cache, nats, tokens = model.cache(LANES, size), 0.0, 0
    for start in range(0, size, PIECE):
        piece = whole[:, start : start + PIECE + 1]
        inputs, targets = piece[:, :-1].clamp(min=0), piece[:, 1:]
        logits = model(inputs, torch.arange(start, start + inputs.shape[1]).expand_as(inputs), cache)
        nats += float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
        tokens += int((targets != IGNORED).sum())
    return nats / tokens


def overlapping(model: Any, stream: Tensor, context: int) -> float:
    """In windows of the context; of every window but the first, the second half alone is scored."""
    half, nats, tokens = context // 2, 0.0, 0
    windows = F.pad(stream, (0, context), value=IGNORED).unfold(0, context + 1, half)
    for number, part in enumerate(windows.split(AT_ONCE)):
        targets = part[:, 1:].clone()
        targets[0 if number else 1 :, :-half] = IGNORED
        logits = model(part[:, :-1].clamp(min=0))
        nats += float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
        tokens += int((targets != IGNORED).sum())
    return nats / tokens
