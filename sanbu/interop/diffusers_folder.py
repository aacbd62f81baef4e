"""The formats of diffusers: configs of its components, names of its weights, an identity autoencoder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sanbu.files import weights
from sanbu.interop.diffusers_schedulers import chain_out
from sanbu.interop.huggingface import InteropError
from sanbu.models.denoisers.dit import DiT
from sanbu.models.denoisers.unet import UNet
from sanbu.models.latents.vae import Autoencoder
from sanbu.paths import Chain
from sanbu.space import Space

ROWS = 1001  # in DiTPipeline label 1000 means no label
Renames = tuple[tuple[str, str], ...]

BLOCK: Renames = (
    (r"\.told\.", ".time_emb_proj."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.out\.", ".to_out.0."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
)
MIDDLE: Renames = (
    (r"middle\.0\.", "mid_block.resnets.0."),
    (r"middle\.1\.", "mid_block.attentions.0."),
    (r"middle\.2\.", "mid_block.resnets.1."),
)
ENDS: Renames = (
    (r"(^|coder\.)first\.", r"\1conv_in."),
    (r"(^|coder\.)norm\.", r"\1conv_norm_out."),
    (r"(^|coder\.)last\.", r"\1conv_out."),
)
UNET: Renames = (
    (r"^network\.", ""),
    (r"^condition\.time\.up\.", "time_embedding.linear_1."),
    (r"^condition\.time\.down\.", "time_embedding.linear_2."),
    (r"^(down|up)\.(\d+)\.blocks\.", r"\1_blocks.\2.resnets."),
    (r"^(down|up)\.(\d+)\.attentions\.", r"\1_blocks.\2.attentions."),
    (r"^(down|up)\.(\d+)\.change\.", r"\1_blocks.\2.\1samplers.0."),
    *MIDDLE,
    *ENDS,
    *BLOCK,
)
DIT: Renames = (
    (r"^network\.", ""),
    (r"^first\.", "pos_embed.proj."),
    (r"^condition\.time\.up\.", "timestep_embedder.linear_1."),
    (r"^condition\.time\.down\.", "timestep_embedder.linear_2."),
    (r"^condition\.label\.", "class_embedder.embedding_table."),
    (r"^blocks\.(\d+)\.told\.", r"transformer_blocks.\1.norm1.linear."),
    (r"^blocks\.(\d+)\.mlp\.up\.", r"transformer_blocks.\1.ff.net.0.proj."),
    (r"^blocks\.(\d+)\.mlp\.down\.", r"transformer_blocks.\1.ff.net.2."),
    (r"^blocks\.(\d+)\.", r"transformer_blocks.\1.attn1."),
    (r"^told\.", "proj_out_1."),
    (r"^last\.", "proj_out_2."),
    *BLOCK,
)


def autoencoder_names(config: Autoencoder) -> Renames:
    """In our autoencoder a resolution is a sequence: its blocks, then the change of resolution."""
    return (
        (r"^encoder\.moments\.", "quant_conv."),
        (r"^decoder\.latent\.", "post_quant_conv."),
        (rf"^encoder\.down\.(\d+)\.{config.layers}\.", r"encoder.down_blocks.\1.downsamplers.0."),
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1.resnets."),
        (rf"^decoder\.up\.(\d+)\.{config.layers + 1}\.", r"decoder.up_blocks.\1.upsamplers.0."),
        (r"^decoder\.up\.(\d+)\.", r"decoder.up_blocks.\1.resnets."),
        *MIDDLE,
        *ENDS,
        *BLOCK,
    )


def moments(tensors: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Weights of an AutoencoderKL with the second half of its moments, the log variance, multiplied by a factor.

    Ours are log deviations: times 2 on the way out, 0.5 on the way in, which is exact.
    """
    changed = dict(tensors)
    for name in ("quant_conv.weight", "quant_conv.bias"):
        if name in tensors:
            mean, spread = tensors[name].tensor_split(2)
            changed[name] = torch.cat((mean, factor * spread))
    return changed


def rename(name: str, rules: Renames) -> str:
    """The diffusers name of one of our weights."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


# -- components -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One component of a pipeline: its class, its config, its weights where it has any."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor] | None = None


def unet_config(config: UNet, space: Space) -> dict[str, Any]:
    """UNet2DModel's arguments. Raises InteropError for sides and attention heads that it does not support."""
    attends = [level in config.attention for level in range(len(config.multipliers))]
    times = 2 ** (len(config.multipliers) - 1)
    if any(side % times for side in space.shape[1:]):
        raise InteropError(
            f"UNet2DModel needs sides that are multiples of {times}; these are {space.shape[2]} x {space.shape[1]}"
        )
    return {
        "sample_size": list(space.shape[1:]),
        "in_channels": space.shape[0],
        "out_channels": space.shape[0],
        "block_out_channels": [config.width * times for times in config.multipliers],
        "down_block_types": ["AttnDownBlock2D" if each else "DownBlock2D" for each in attends],
        "up_block_types": ["AttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        "layers_per_block": config.layers,
        "attention_head_dim": head_dim(config),
        "norm_num_groups": config.groups,
        "norm_eps": config.epsilon,
        "downsample_padding": 1 if config.padding == "all" else 0,
        "freq_shift": config.wave_shift,
        "dropout": config.dropout,
    }


def head_dim(config: UNet) -> int | None:
    """attention_head_dim; None means a single head. Raises InteropError where heads would not divide the widths."""
    levels = {*config.attention, len(config.multipliers) - 1}
    widths = [config.width * config.multipliers[level] for level in levels if level < len(config.multipliers)]
    if all(wide < 2 * config.head_width for wide in widths):
        return None
    if any(wide % config.head_width for wide in widths):
        raise InteropError(
            f"UNet2DModel needs widths that are multiples of model.head_width, {config.head_width}; these are {widths}"
        )
    return config.head_width


def ddim(path: Chain, prediction: str, clip: bool = False) -> Part:
    """A DDIMScheduler with trailing steps."""
    how = {
        "prediction_type": prediction,
        "timestep_spacing": "trailing",
        "clip_sample": clip,
        "set_alpha_to_one": True,
    }
    return Part("DDIMScheduler", {**chain_out(path), **how})


def dit_tensors(ours: dict[str, Tensor], classes: int, layers: int) -> dict[str, Tensor]:
    """DiTTransformer2DModel's weights."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        new = rename(name, DIT)
        if new.startswith("class_embedder."):
            table = torch.zeros(ROWS, tensor.shape[1])
            table[: classes + 1], table[-1] = tensor, tensor[classes]
            tensor = table
        each = new.startswith(("class_embedder.", "timestep_embedder."))
        for target in [f"transformer_blocks.{i}.norm1.emb.{new}" for i in range(layers)] if each else [new]:
            theirs[target] = tensor.clone() if each else tensor
    return theirs


def dit_config(config: DiT, shape: tuple[int, ...]) -> dict[str, Any]:
    """DiTTransformer2DModel's arguments."""
    return {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "in_channels": shape[0],
        "out_channels": shape[0],
        "num_layers": config.layers,
        "sample_size": square(shape),
        "patch_size": config.patch,
        "num_embeds_ada_norm": ROWS - 1,
        "norm_eps": config.epsilon,
    }


def square(shape: tuple[int, ...]) -> int:
    """The side of a square picture. Raises InteropError for others, which DiTPipeline cannot draw."""
    if shape[1] != shape[2]:
        raise InteropError(f"DiTPipeline draws only square pictures; these are {shape[2]} x {shape[1]}")
    return shape[1]


def autoencoder_config(config: Autoencoder, space: Space) -> dict[str, Any]:
    """AutoencoderKL's arguments."""
    levels = len(config.multipliers)
    return {
        "in_channels": space.shape[0],
        "out_channels": space.shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [config.width * times for times in config.multipliers],
        "layers_per_block": config.layers,
        "latent_channels": config.latent,
        "norm_num_groups": config.groups,
        "sample_size": space.shape[1],
        "scaling_factor": 1.0,
    }


def identity(channels: int, side: int) -> Part:
    """An autoencoder whose decoder returns its input, to about 1e-5.

    Each channel becomes the group (x, -x, M, -M), which has mean 0 and deviation M / sqrt 2 for any x, so its norm is
    linear in x. A shift by 30, where SiLU is the identity, is undone at the end.
    """
    large, shift = 300.0, 30.0
    config = Autoencoder(width=4 * channels, layers=1, multipliers=(1,), latent=channels, groups=channels)
    space = Space((channels, side, side), 256)
    model = config.build(space)
    decoder: Any = model.decoder
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for c in range(channels):
            decoder.latent.weight[c, c] = 1
            decoder.first.weight[4 * c, c, 1, 1] = 1
            decoder.first.weight[4 * c + 1, c, 1, 1] = -1
            decoder.first.bias[4 * c + 2] = large
            decoder.first.bias[4 * c + 3] = -large
            decoder.norm.weight[4 * c] = large / 2**0.5
            decoder.norm.bias[4 * c] = shift
            decoder.last.weight[c, 4 * c, 1, 1] = 1
            decoder.last.bias[c] = -shift
    rules = autoencoder_names(config)
    left = ("encoder.label.weight", "decoder.label.weight", "log_scale")
    theirs = {rename(name, rules): tensor for name, tensor in weights(model).items() if name not in left}
    return Part("AutoencoderKL", autoencoder_config(config, space), theirs)
