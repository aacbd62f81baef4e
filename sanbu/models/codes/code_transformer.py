"""A transformer over codes: the embeddings of a step's codes are added, and each codebook has a head of its own.

x_t = sum_k E_k[code_k at step t - 1],    p(code_k at step t | earlier steps) = softmax(H_k transformer(x_1 .. x_t))

The blocks are those of LLaMA. Codes come with the delay pattern (`sanbu.layers.delays`); the number V means empty
(Copet and others, "Simple and controllable music generation", 2023). Shapes: B rows, K codebooks, T steps, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import SanbuError
from sanbu.layers.attention import KeyValues, LayerCache
from sanbu.models.model import ModelConfig
from sanbu.models.tokens.llama import Llama
from sanbu.models.tokens.transformer import see
from sanbu.space import Models, Space


class CodeTransformer(ModelConfig):
    """Several codes per step, by a transformer."""

    family: ClassVar[str] = "codes"
    kind: Literal["code-transformer"] = "code-transformer"
    codebooks: int = Field(4, ge=1, description="codes per frame; as in parents.codec")
    codes: int = Field(512, ge=2, description="codes per codebook; as in parents.codec")
    layers: int = Field(6, ge=1)
    heads: int = Field(6, ge=1)
    width: int = Field(192, ge=1, description="width; sets automatic learning rate and batch size")
    context: int = Field(1024, ge=2, description="longest sequence, in frames of codes plus codebooks")

    def check(self, space: Space) -> None:
        if space.mel is None:
            raise ValueError("model: this kind continues sounds, but the data has none; set data=sounds")
        self.blocks().check(Space(()))

    def build(self, space: Space) -> nn.Module:
        return CodeModel(self)

    def blocks(self) -> Llama:
        """The decoder."""
        return Llama(layers=self.layers, heads=self.heads, width=self.width, context=self.context)


class CodeModel(nn.Module):
    """logits [B, K, T, V + 1] of the codes of each step, of the codes of the steps before."""

    offsets: Tensor

    def __init__(self, config: CodeTransformer) -> None:
        super().__init__()
        self.codebooks, self.empty, self.context = config.codebooks, config.codes, config.context
        kinds = config.codes + 1
        self.decoder = config.blocks().build(Space((config.context,), config.codebooks * kinds))
        self.register_buffer("offsets", kinds * torch.arange(config.codebooks)[:, None], persistent=False)

    def forward(
        self, before_BKT: Tensor, positions_BT: Tensor | None = None, cache: Sequence[LayerCache] | None = None
    ) -> Tensor:
        """before: the codes of the step before each step; see `shifted`. positions: of the steps, for a cache."""
        decoder: Any = self.decoder
        ids_BKT = before_BKT + self.offsets
        x_BTD = decoder.embedding.tokens(ids_BKT).sum(1)
        patterns = {block.attention.pattern for block in decoder.blocks.values()}
        sight = see(patterns, ids_BKT[:, 0], positions_BT, cache)
        for index, block in decoder.blocks.items():
            x_BTD = block(x_BTD, sight, None if cache is None else cache[int(index)])
        logits = decoder.head(decoder.norm(x_BTD))
        return logits.unflatten(2, (self.codebooks, -1)).transpose(1, 2)

    def shifted(self, sequence_BKT: Tensor) -> Tensor:
        """The codes of the step before each step; before the first all are empty."""
        return F.pad(sequence_BKT[:, :, :-1], (1, 0), value=self.empty)

    def cache(self, rows: int, slots: int) -> list[KeyValues]:
        """An empty KV cache."""
        decoder: Any = self.decoder
        return list(decoder.cache(rows, slots))


def codec_of(models: Models) -> Any:
    """The sound codec, if it has the codes of the model. Raises SanbuError in one line."""
    model, codec = models["model"], models.get("codec")
    if codec is None:
        raise SanbuError("parents.codec: a language model of codes needs the run of a sound codec: parents.codec=RUN")
    if not hasattr(codec, "quantizer"):
        raise SanbuError("parents.codec: given a run without codes; give the run of a sound codec, as in sound-codec")
    ours, theirs = (model.codebooks, model.empty), (codec.quantizer.codebooks, codec.quantizer.codes)
    if ours != theirs:
        raise SanbuError(
            f"parents.codec: it has {theirs[0]} codebooks of {theirs[1]} codes, but the model has {ours[0]} of"
            f" {ours[1]}; set model.codebooks={theirs[0]} model.codes={theirs[1]}"
        )
    return codec
