"""The kinds of step 1: which functions may be the answer. Configs only; each `build` imports its module when called.

`width` is the one dial of every family: the learning rate and the batch follow from it unless they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sanbu.config import Choice

if TYPE_CHECKING:
    from torch import nn

    from sanbu.data.kinds import Space


class ModelConfig(Choice):
    """Step 1: a set of functions; its parameters name one of them."""

    width: int = Field(64, ge=1, description="the one dial")

    def build(self, space: Space) -> nn.Module:
        """The function with its first weights, for samples of this space."""
        raise NotImplementedError

    def check(self, space: Space) -> None:
        """Raise ValueError, in one line, when the model cannot serve the space."""


class TransformerConfig(ModelConfig):
    """What the decoders of the GPT line have in common."""

    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    width: int = Field(256, ge=1, description="the one dial")
    context: int = Field(256, ge=1, description="longest sequence")

    def check(self, space: Space) -> None:
        if self.width % self.heads:
            raise ValueError(f"model.width: given {self.width}, but it must be a multiple of model.heads, {self.heads}")
        if space.shape and space.shape[0] > self.context:
            raise ValueError(
                f"data.context: given {space.shape[0]}, but the longest sequence of the model is {self.context}"
            )


class GPT1(TransformerConfig):
    """Post-norm decoder with learned positions (Radford and others, 2018)."""

    kind: Literal["gpt1"] = "gpt1"
    dropout: float = Field(0.1, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.gpt import gpt1

        return gpt1(self, space)


class GPT2(TransformerConfig):
    """Pre-norm decoder with learned positions (Radford and others, 2019)."""

    kind: Literal["gpt2"] = "gpt2"
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.gpt import gpt2

        return gpt2(self, space)


class GPT3(TransformerConfig):
    """GPT-2 with alternating dense and locally banded attention (Brown and others, 2020; Child and others, 2019)."""

    kind: Literal["gpt3"] = "gpt3"
    band: int = Field(128, ge=1, description="how far back the banded layers look")
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.gpt import gpt3

        return gpt3(self, space)


class Llama(TransformerConfig):
    """RMSNorm, rotary positions, SwiGLU, grouped queries (Touvron and others, 2023)."""

    kind: Literal["llama"] = "llama"
    key_heads: int | Literal["auto"] = Field("auto", description="heads of keys and values; auto is one a query head")
    hidden: int | Literal["auto"] = Field("auto", description="width inside the MLP; auto is 8/3 of the width, in 256s")
    rope_base: float = Field(10000.0, gt=0)
    epsilon: float = Field(1e-5, gt=0, description="of the norms")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.key_heads != "auto" and self.heads % self.key_heads:
            raise ValueError(f"model.key_heads: given {self.key_heads}, but it must divide model.heads, {self.heads}")
        if self.width // self.heads % 2:
            raise ValueError(f"model.width: {self.width} over {self.heads} heads is odd; rotary positions need an even head")

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.llama import llama

        return llama(self, space)


class Modern(TransformerConfig):
    """What speed records agree on: RMSNorm, rotary, QK-norm, squared ReLU, zero projections, residual scalars, soft-cap."""

    kind: Literal["modern"] = "modern"
    cap: float = Field(15.0, gt=0, description="logits stay within +- this")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width // self.heads % 2:
            raise ValueError(f"model.width: {self.width} over {self.heads} heads is odd; rotary positions need an even head")

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.modern import modern

        return modern(self, space)
