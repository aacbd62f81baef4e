"""The kinds of step 1: which functions may be the answer. Configs only; each `build` imports its module when called.

`width` is the one dial of every family: the learning rate and the batch follow from it unless they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sanbu.config import Choice
from sanbu.paths import Linear, Path, TargetName

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sanbu.data.kinds import Space

    Weights = dict[str, Tensor]


class ModelConfig(Choice):
    """Step 1: a set of functions; its parameters name one of them."""

    family: ClassVar[str] = ""  # what it is called with, which objectives and strategies ask for

    def build(self, space: Space) -> nn.Module:
        """The function with its first weights, for samples of this space."""
        raise NotImplementedError

    def dial(self) -> int:
        """The width, from which learning rate and batch follow."""
        return getattr(self, "width", 64)

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        """A parent's weights under this model's names; `own` are the first weights, for what the parent lacks."""
        return found

    def check(self, space: Space) -> None:
        """Raise ValueError, in one line, when the model cannot serve the space."""


class TransformerConfig(ModelConfig):
    """What the decoders of the GPT line have in common."""

    family: ClassVar[str] = "tokens"
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


# -- pictures, piece by piece ----------------------------------------------------------------------------------------------


class PictureConfig(ModelConfig):
    """What the models of pictures have in common; a label is told to all in the same way, as a row of a table."""

    layers: int = Field(4, ge=1)
    width: int = Field(64, ge=1, description="the one dial")

    def check(self, space: Space) -> None:
        if len(space.shape) != 3 or space.vocabulary < 2:
            raise ValueError(
                f"model: this kind draws pictures, but the data's samples have shape {list(space.shape)}; set data=images"
            )


class PixelCNN(PictureConfig):
    """Gated PixelCNN; with components, PixelCNN++'s mixture of logistics as the law of a level."""

    kind: Literal["pixelcnn"] = "pixelcnn"
    family: ClassVar[str] = "pixels"
    kernel: int = Field(3, ge=3, description="odd side of the masked convolutions")
    components: int = Field(0, ge=0, description="logistics mixed for a level; 0 is a softmax over levels")
    dropout: float = Field(0.0, ge=0, lt=1)

    def check(self, space: Space) -> None:
        super().check(space)
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, but it must be odd")

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import pixelcnn

        return pixelcnn.PixelCNN(self, space)


class RowLSTM(PictureConfig):
    """PixelRNN with a row of states at a time."""

    kind: Literal["row-lstm"] = "row-lstm"
    family: ClassVar[str] = "pixels"

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import pixelrnn

        return pixelrnn.PixelRNN(self, space, pixelrnn.RowLSTM)


class DiagonalBiLSTM(PictureConfig):
    """PixelRNN along both diagonals: every pixel sees all before it."""

    kind: Literal["diagonal-bilstm"] = "diagonal-bilstm"
    family: ClassVar[str] = "pixels"

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import pixelrnn

        return pixelrnn.PixelRNN(self, space, pixelrnn.DiagonalBiLSTM)


class ImageGPT(PictureConfig):
    """The decoder of GPT-2 over pixels."""

    kind: Literal["image-gpt"] = "image-gpt"
    family: ClassVar[str] = "pixels"
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % self.heads:
            raise ValueError(f"model.width: given {self.width}, but it must be a multiple of model.heads, {self.heads}")

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import image_gpt

        return image_gpt.ImageGPT(self, space)


# -- pictures, all at once -------------------------------------------------------------------------------------------------


class PerceptronVAE(PictureConfig):
    """Variational autoencoder of perceptrons, for small pictures."""

    kind: Literal["perceptron-vae"] = "perceptron-vae"
    family: ClassVar[str] = "latent"
    latent: int = Field(16, ge=1, description="size of the latent vector")
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import vae

        return vae.perceptron_vae(self, space)


class Autoencoder(PictureConfig):
    """Variational autoencoder of convolutions; the latent is a smaller picture (the shape of AutoencoderKL)."""

    kind: Literal["autoencoder"] = "autoencoder"
    family: ClassVar[str] = "latent"
    layers: int = Field(1, ge=1, description="residual blocks a resolution")
    multipliers: tuple[int, ...] = Field((1, 2), description="widths by resolution, in units of width")
    latent: int = Field(4, ge=1, description="channels of the latent")
    groups: int = Field(8, ge=1, description="of the norms")

    def check(self, space: Space) -> None:
        super().check(space)
        divisible(self.width, self.groups)

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import vae

        return vae.autoencoder(self, space)


class PerceptronGAN(PictureConfig):
    """Generator and critic of perceptrons, for small pictures."""

    kind: Literal["perceptron-gan"] = "perceptron-gan"
    family: ClassVar[str] = "generator"
    latent: int = Field(32, ge=1, description="size of the noise vector")
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import gan

        return gan.perceptron_generator(self, space)

    def critic(self, space: Space) -> nn.Module:
        """The judge that goes with it."""
        from sanbu.models import gan

        return gan.PerceptronCritic(self, space)


class DCGAN(PictureConfig):
    """Generator and critic of convolutions."""

    kind: Literal["dcgan"] = "dcgan"
    family: ClassVar[str] = "generator"
    latent: int = Field(64, ge=1, description="size of the noise vector")

    def build(self, space: Space) -> nn.Module:
        from sanbu.models import gan

        return gan.dcgan(self, space)

    def critic(self, space: Space) -> nn.Module:
        """The judge that goes with it."""
        from sanbu.models import gan

        return gan.ConvolutionCritic(self, space)


# -- pictures, in N refinements --------------------------------------------------------------------------------------------


class DenoiserConfig(PictureConfig):
    """A network with the path it undoes and the target it predicts."""

    family: ClassVar[str] = "denoiser"
    path: Path = Linear()
    target: TargetName = Field("velocity", description="what the network predicts")
    deviation: float = Field(0.5, gt=0, description="of the data, for the target preconditioned")

    def check(self, space: Space) -> None:
        super().check(space)
        if isinstance(self.path, Linear) and self.target == "noise":
            raise ValueError(
                "model.target: given noise, but at the noisy end of the linear path noise says nothing; use velocity"
            )

    def network(self, space: Space) -> nn.Module:
        """The network alone."""
        raise NotImplementedError

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.denoiser import Denoiser

        return Denoiser(self.network(space), self)


class PerceptronDenoiser(DenoiserConfig):
    """Pixels as one vector through residual blocks, for small pictures."""

    kind: Literal["perceptron-denoiser"] = "perceptron-denoiser"
    dropout: float = Field(0.0, ge=0, lt=1)

    def network(self, space: Space) -> nn.Module:
        from sanbu.models import denoiser

        return denoiser.PerceptronNetwork(self, space)


class UNet(DenoiserConfig):
    """The U-Net of DDPM."""

    kind: Literal["unet"] = "unet"
    layers: int = Field(1, ge=1, description="residual blocks a resolution")
    multipliers: tuple[int, ...] = Field((1, 2), description="widths by resolution, in units of width")
    attention: tuple[int, ...] = Field((1,), description="resolutions with attention, counted from 0, the full one")
    head_width: int = Field(8, ge=1, description="of attention")
    groups: int = Field(8, ge=1, description="of the norms")
    dropout: float = Field(0.0, ge=0, lt=1)

    def check(self, space: Space) -> None:
        super().check(space)
        divisible(self.width, self.groups)

    def network(self, space: Space) -> nn.Module:
        from sanbu.models import unet

        return unet.UNet(self, space)


class DiT(DenoiserConfig):
    """A transformer over patches with adaLN-Zero (Peebles and Xie, 2023)."""

    kind: Literal["dit"] = "dit"
    heads: int = Field(4, ge=1)
    patch: int = Field(2, ge=1, description="side of a patch")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"model.width: given {self.width}, but it must be a multiple of 4 and of model.heads, {self.heads}"
            )
        if any(side % self.patch for side in space.shape[1:]):
            raise ValueError(
                f"model.patch: given {self.patch}, but it must divide height and width, {list(space.shape[1:])}"
            )

    def network(self, space: Space) -> nn.Module:
        from sanbu.models import dit

        return dit.DiT(self, space)


def divisible(width: int, groups: int) -> None:
    """Raise ValueError when norms cannot group the channels."""
    if width % groups:
        raise ValueError(f"model.width: given {width}, but it must be a multiple of model.groups, {groups}")
