"""Runs made from diffusers folders of others: a recipe from their configs, and our weights from theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.data.image_rows import Images
from sanbu.files import read_object
from sanbu.interop.diffusers_fields import (
    AUTOENCODER_FIELDS,
    DIT_FIELDS,
    UNET_FIELDS,
    Fields,
    read_fields,
    refuse,
)
from sanbu.interop.diffusers_folder import DIT, UNET, autoencoder_names, identity, moments
from sanbu.interop.diffusers_layout import (
    Component,
    check_classes,
    components,
    flipped,
    matched,
    network_of,
    read_weights,
    shared_embedders,
)
from sanbu.interop.diffusers_schedulers import Schedule, scheduler_in, walk_given
from sanbu.interop.huggingface import InteropError
from sanbu.models.denoisers.dit import DiT
from sanbu.models.denoisers.unet import UNet
from sanbu.models.latents.vae import Autoencoder
from sanbu.objectives.denoising import Denoising
from sanbu.objectives.elbo import Elbo
from sanbu.optimizers.gradient import AdamW
from sanbu.recipe import Recipe
from sanbu.strategies.one_shot import OneShot
from sanbu.strategies.refinement import Refinement

Found = Mapping[str, Component]
STEPS = 50  # of an imported denoiser, or all of a shorter chain


def foreign(source: Path) -> tuple[Recipe, nn.Module]:
    """The recipe and the model of a folder. Raises InteropError naming what has no equal here."""
    found = components(source)
    network = network_of(source, found)
    check_classes(found)
    readers = {"UNet2DModel": unet_in, "DiTTransformer2DModel": dit_in, "AutoencoderKL": autoencoder_in}
    return readers[network.kind](source, network, found)


def built(network: Component, recipe: Recipe) -> nn.Module:
    """The model of a recipe. Raises InteropError where its fields do not fit each other."""
    space = recipe.data.space()
    try:
        recipe.model.check(space)
        return recipe.model.build(space)
    except (ValueError, RuntimeError) as error:
        raise InteropError(f"{network.config}: {str(error).splitlines()[0]}") from None


def schedule_of(source: Path, found: Found) -> Schedule:
    """The noise path of a denoiser. Raises InteropError where there is no scheduler."""
    if "scheduler" not in found:
        raise InteropError(f"{source}: there is no scheduler_config.json, which gives the noise path of the network")
    return scheduler_in(found["scheduler"].config)


def picture_shape(network: Component, fields: Fields) -> tuple[int, int, int]:
    """Channels, height, width."""
    channels, size = fields["in_channels"], fields["sample_size"]
    if fields["out_channels"] not in (None, channels):
        refuse(network.config, "out_channels", fields["out_channels"], f"{channels}, as in_channels")
    height, width = size if isinstance(size, list) else (size, size)
    return channels, height, width


def multipliers(network: Component, fields: Fields) -> tuple[int, ...]:
    """Widths over the first. Raises InteropError where they are not multiples of it, or not one for each block."""
    widths = fields["block_out_channels"]
    if any(wide % widths[0] for wide in widths):
        refuse(network.config, "block_out_channels", widths, f"multiples of the first, {widths[0]}")
    for name in ("down_block_types", "up_block_types"):
        if len(fields[name]) != len(widths):
            refuse(network.config, name, fields[name], f"{len(widths)} blocks, as block_out_channels")
    return tuple(wide // widths[0] for wide in widths)


# -- U-Net ------------------------------------------------------------------------------------------------------------


def unet_in(source: Path, network: Component, found: Found) -> tuple[Recipe, nn.Module]:
    """A UNet2DModel over pictures; one with labels has to be given one, because it has no row for none."""
    fields, schedule = read_fields(network.config, UNET_FIELDS), schedule_of(source, found)
    shape, classes = picture_shape(network, fields), fields["num_class_embeds"] or 0
    recipe = denoiser_recipe("unet", unet_model(network, fields, schedule), shape, classes, 0.0, schedule)
    model, theirs = built(network, recipe), read_weights(network.folder)
    if not fields["flip_sin_to_cos"]:
        theirs = flipped(theirs, fields["block_out_channels"][0])
    label = "network.condition.label.weight"
    table = torch.zeros_like(model.state_dict()[label])
    if classes:
        given = theirs.pop("class_embedding.weight", None)
        if given is None or given.shape != table[:-1].shape:
            what = "no" if given is None else f"of shape {list(given.shape)}, expected {list(table[:-1].shape)}:"
            raise InteropError(f"{network.folder}: {what} tensor 'class_embedding.weight'")
        table[:-1] = given
    model.load_state_dict(matched(network.folder, model, theirs, UNET, {label: table}))
    return recipe, model


def unet_model(network: Component, fields: Fields, schedule: Schedule) -> UNet:
    """Our config of a UNet2DModel."""
    times, widths = multipliers(network, fields), fields["block_out_channels"]
    down, up = (["Attn" in kind for kind in fields[name]] for name in ("down_block_types", "up_block_types"))
    if up != down[::-1]:
        refuse(network.config, "up_block_types", fields["up_block_types"], "attention where down_block_types has it")
    same = {"time_embedding_dim": 4 * widths[0], "attn_norm_num_groups": fields["norm_num_groups"]}
    for name, value in same.items():
        if fields[name] not in (None, value):
            refuse(network.config, name, fields[name], f"{value} or None")
    attends = [wide for wide, each in zip(widths, down, strict=True) if each] + widths[-1:]
    head = fields["attention_head_dim"]
    if head is not None and any(wide % head for wide in attends):
        refuse(network.config, "attention_head_dim", head, f"a divisor of {', '.join(map(str, attends))}, or None")
    return UNet(
        width=widths[0],
        multipliers=times,
        layers=fields["layers_per_block"],
        attention=tuple(level for level, each in enumerate(down) if each),
        head_width=max(attends) if head is None else head,
        groups=fields["norm_num_groups"],
        dropout=float(fields["dropout"]),
        epsilon=float(fields["norm_eps"]),
        padding="all" if fields["downsample_padding"] else "corner",
        wave_shift=float(fields["freq_shift"]),
        path=schedule.path,
        target=schedule.target,
    )


# -- DiT --------------------------------------------------------------------------------------------------------------


def dit_in(source: Path, network: Component, found: Found) -> tuple[Recipe, nn.Module]:
    """A DiTTransformer2DModel over pictures."""
    fields, schedule = read_fields(network.config, DIT_FIELDS), schedule_of(source, found)
    if "vae" in found:
        check_pictures(network, found["vae"])
    if fields["sample_size"] % fields["patch_size"]:
        refuse(network.config, "patch_size", fields["patch_size"], f"a divisor of sample_size, {fields['sample_size']}")
    config = DiT(
        width=fields["num_attention_heads"] * fields["attention_head_dim"],
        heads=fields["num_attention_heads"],
        layers=fields["num_layers"],
        patch=fields["patch_size"],
        epsilon=float(fields["norm_eps"]),
        path=schedule.path,
        target=schedule.target,
    )
    shape, classes = picture_shape(network, fields), fields["num_embeds_ada_norm"]
    recipe = denoiser_recipe("dit", config, shape, classes, 0.1, schedule)
    model = built(network, recipe)
    theirs = shared_embedders(network.folder, read_weights(network.folder))
    model.load_state_dict(matched(network.folder, model, theirs, DIT, {}))
    return recipe, model


def check_pictures(network: Component, vae: Component) -> None:
    """Raise InteropError where a pipeline's transformer draws latents, which an autoencoder turns into pictures.

    A DiTPipeline has an autoencoder in any case; over pictures it keeps their size and channels.
    """
    config = read_object(vae.config)
    latent, sizes = config.get("latent_channels", 4), config.get("block_out_channels", [64])
    if vae.kind != "AutoencoderKL" or latent != config.get("out_channels", 3) or len(sizes) != 1:
        raise InteropError(
            f"{network.config}: the transformer draws the latents of an autoencoder ({vae.kind}); supported: pictures"
        )


# -- autoencoder ------------------------------------------------------------------------------------------------------


def autoencoder_in(source: Path, network: Component, found: Found) -> tuple[Recipe, nn.Module]:
    """An AutoencoderKL alone. Its decoder has no noise scale, so that of a new model is kept."""
    fields = read_fields(network.config, AUTOENCODER_FIELDS)
    shape, times = picture_shape(network, fields), multipliers(network, fields)
    multiple = 2 ** (len(times) - 1)
    if any(side % multiple for side in shape[1:]):
        refuse(network.config, "sample_size", fields["sample_size"], f"multiples of {multiple}")
    config = Autoencoder(
        width=fields["block_out_channels"][0],
        multipliers=times,
        layers=fields["layers_per_block"],
        latent=fields["latent_channels"],
        groups=fields["norm_num_groups"],
    )
    data = Images(path="unknown", shape=shape, levels=256, classes=0)
    recipe = Recipe(
        name="autoencoder", data=data, model=config, objective=Elbo(), optimizer=AdamW(), strategy=OneShot()
    )
    model = built(network, recipe)
    theirs = with_ends(fields, read_weights(network.folder))
    own = {name: value for name, value in model.state_dict().items() if "label" in name or name == "log_scale"}
    rules = autoencoder_names(config)
    model.load_state_dict(matched(network.folder, model, moments(theirs, 0.5), rules, own))
    return recipe, model


def with_ends(fields: Fields, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with identities for the two convolutions that some autoencoders leave out."""
    latent, whole = fields["latent_channels"], dict(theirs)
    for field, channels in (("quant_conv", 2 * latent), ("post_quant_conv", latent)):
        if not fields[f"use_{field}"]:
            whole[f"{field}.weight"] = torch.eye(channels)[..., None, None]
            whole[f"{field}.bias"] = torch.zeros(channels)
    return whole


# -- recipes ----------------------------------------------------------------------------------------------------------


def denoiser_recipe(
    name: str, model: UNet | DiT, shape: tuple[int, int, int], classes: int, drop: float, schedule: Schedule
) -> Recipe:
    """A recipe for sampling; its data is a placeholder."""
    data = Images(path="unknown", shape=shape, levels=256, classes=classes, drop_label=drop)
    steps = schedule.path.most_steps() or STEPS
    strategy = Refinement(steps=min(steps, STEPS), clip=schedule.clip)
    return Recipe(name=name, data=data, model=model, objective=Denoising(), optimizer=AdamW(), strategy=strategy)


def class_names(source: Path, classes: int) -> tuple[str, ...]:
    """The names of the classes in a DiTPipeline's model_index.json, where it has one for each class; else nothing."""
    index = source / "model_index.json"
    names: Any = read_object(index).get("id2label") if index.exists() else None
    if not names:
        return ()
    if not (isinstance(names, dict) and set(names) == {str(number) for number in range(classes)}):
        raise InteropError(
            f"{index}: id2label has to give a name for each of {classes} classes, '0' to '{classes - 1}'"
        )
    return tuple(str(names[str(number)]) for number in range(classes))


def left_out(source: Path) -> list[str]:
    """What a folder of others says that its run does not have, a line each: how to walk, and an autoencoder."""
    if (source / "sanbu.json").exists():
        return []
    found, lines = components(source), []
    if "scheduler" in found and (walk := walk_given(found["scheduler"].config)):
        given = ", ".join(f"{name}={value}" for name, value in walk.items())
        lines.append(f"not used, because a run draws by its own strategy: {given}")
    if "transformer" in found and "vae" in found:
        fields = read_object(found["transformer"].config)
        same = identity(fields["in_channels"], fields.get("sample_size", 32)).tensors or {}
        theirs = read_weights(found["vae"].folder)
        if theirs.keys() != same.keys() or not all(theirs[name].equal(tensor) for name, tensor in same.items()):
            lines.append("vae: not used; the run draws what the transformer draws")
    return lines
