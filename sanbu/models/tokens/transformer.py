"""The transformer decoder, composed from parts (Vaswani and others, 2017).

Shapes: B batch, T time, D width, V vocabulary, S cache slots. GPT-1, GPT-2, GPT-3, LLaMA, `modern` and the others are
functions in the files beside this one that choose embedding, blocks and head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.attention import Attention, KeyValues, LayerCache, Pattern, Sight, causal
from sanbu.models.model import ModelConfig
from sanbu.space import Space

Cache = list[KeyValues]
Readout = Callable[[nn.Module, Tensor], Tensor]


def logits(head: nn.Module, hidden_BTD: Tensor) -> Tensor:
    """The default readout: the head on the last hidden states."""
    return head(hidden_BTD)


class TransformerConfig(ModelConfig):
    """What the decoders of the GPT line have in common."""

    family: ClassVar[str] = "tokens"
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    width: int = Field(256, ge=1, description="width; sets automatic learning rate and batch size")
    context: int = Field(256, ge=1, description="longest sequence")

    def check(self, space: Space) -> None:
        if self.head_size() * self.heads != self.width and getattr(self, "head_width", "auto") == "auto":
            raise ValueError(f"model.width: given {self.width}, but it must be a multiple of model.heads, {self.heads}")
        if space.shape and space.shape[0] > self.context:
            raise ValueError(
                f"data.context: given {space.shape[0]}, but the longest sequence of the model is {self.context}"
            )

    def head_size(self) -> int:
        """The width of an attention head."""
        given: Any = getattr(self, "head_width", "auto")
        return self.width // self.heads if given == "auto" else int(given)


class Decoder(nn.Module):
    """tokens -> embedding -> blocks -> norm -> head.

    context is the longest sequence. embedding(tokens_BT, positions_BT) -> x_BTD. Blocks are keyed by index, so weight
    names stay valid when the decoder is cut into pipeline stages.
    """

    embedding: Any
    blocks: Any
    head: Any
    cached: torch.dtype | None  # the type of the KV cache; None is that of the weights

    def __init__(
        self, embedding: nn.Module, blocks: list[nn.Module], norm: nn.Module, head: nn.Module, context: int
    ) -> None:
        super().__init__()
        self.context, self.cached = context, None
        self.embedding = embedding
        self.blocks = nn.ModuleDict({str(index): block for index, block in enumerate(blocks)})
        self.norm = norm
        self.head = head

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[LayerCache] | None = None,
        readout: Readout = logits,
    ) -> Tensor:
        """logits_BTV for tokens_BT, or whatever `readout(head, hidden_BTD)` makes.

        positions_BT: position of each token in its document; 0 starts a new document, which attends to none before it.
        cache: KV cache of earlier tokens; it requires positions_BT, and each row holds one document.
        """
        patterns = {block.attention.pattern for block in self.blocks.values()}
        sight = see(patterns, tokens_BT, positions_BT, cache)
        x_BTD = self.embedding(tokens_BT, sight.positions_BT)
        for index, block in self.blocks.items():
            x_BTD = block(x_BTD, sight, None if cache is None else cache[int(index)])
        return readout(self.head, self.norm(x_BTD))

    def cache(self, rows: int, slots: int) -> Cache:
        """An empty KV cache for `rows` rows and `slots` positions, on the device of the model."""
        weight = self.embedding.tokens.weight
        like = torch.zeros(0, dtype=self.cached or weight.dtype, device=weight.device)
        return [keys_and_values(block.attention, like, rows, slots) for block in self.blocks.values()]

    def tie(self) -> None:
        """Share the matrix of the embedding with the head."""
        self.head.weight = self.embedding.tokens.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        """Move or convert the weights. Torch keeps shared parameters together, but not shared buffers (frozen ones)."""
        tied = getattr(self.head, "weight", None) is self.embedding.tokens.weight
        super()._apply(fn, recurse)
        if tied:
            self.tie()
        return self


def see(
    patterns: set[Pattern], tokens_BT: Tensor, positions_BT: Tensor | None, cache: Sequence[LayerCache] | None
) -> Sight:
    """The positions of the tokens and a mask per attention pattern; documents within a row do not see each other."""
    time = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    if cache is not None:
        assert positions_BT is not None, "a cache needs positions"
        return cache[0].see(positions_BT, patterns)
    if positions_BT is None:
        alone = {pattern: None if pattern is causal else pattern(time[:, None], time) for pattern in patterns}
        return Sight(time.expand_as(tokens_BT), alone)
    documents_BT = (positions_BT == 0).cumsum(1)
    together = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
    return Sight(positions_BT, {pattern: pattern(time[:, None], time) & together for pattern in patterns})


def keys_and_values(attention: Attention, like: Tensor, rows: int, slots: int) -> KeyValues:
    """An empty KV cache for a layer, of the type and device of `like`."""
    heads = attention.key.out_features // attention.head_width
    shape = (rows, heads, slots, attention.head_width)
    return KeyValues(like.new_zeros(shape), like.new_zeros(shape))


class Embedding(nn.Module):
    """Token embeddings, with learned positions where `context` is given.

    offset: the row of the first position; the rows before it are not used.
    """

    def __init__(
        self, vocabulary: int, width: int, context: int | None = None, dropout: float = 0.0, offset: int = 0
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context + offset, width) if context is not None else None
        self.dropout, self.offset = nn.Dropout(dropout), offset

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
        x_BTD = self.tokens(tokens_BT)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(positions_BT + self.offset)
        return self.dropout(x_BTD)


class PreNorm(nn.Module):
    """x + f(norm(x)), for attention and then for the MLP: the block of GPT-2 and of nearly all that followed."""

    def __init__(
        self, norm: Callable[[], nn.Module], attention: Attention, mlp: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(), attention
        self.mlp_norm, self.mlp = norm(), mlp
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), sight, cache))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class PostNorm(nn.Module):
    """norm(x + f(x)), for attention and then for the MLP: the block of the first transformer and of GPT-1."""

    def __init__(
        self, norm: Callable[[], nn.Module], attention: Attention, mlp: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(), attention
        self.mlp_norm, self.mlp = norm(), mlp
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, sight, cache)))
        return self.mlp_norm(x_BTD + self.dropout(self.mlp(x_BTD)))


def initialise(model: nn.Module, deviation: float, projection_deviation: float) -> None:
    """Normal weights, zero biases; the last matrix of each residual branch gets its own deviation."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            last: Any = name.endswith((".out", ".down"))
            nn.init.normal_(module.weight, std=projection_deviation if last else deviation)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
