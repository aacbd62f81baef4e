"""Picture runs to and from folders of diffusers' `DiffusionPipeline.from_pretrained`, bit for bit.

A U-Net becomes a DDPMPipeline. A DiT becomes a DiTPipeline, which needs an autoencoder: an identity. An autoencoder
becomes a DiTPipeline whose transformer outputs zero and whose noise schedule adds almost no noise, so that the decoder
gets the latent that the pipeline draws. Folders hold JSON and safetensors; weights that diffusers has no name for are
in sanbu.safetensors. Folders of others are read in `diffusers_in.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.checkpoints import Writer
from sanbu.codecs.images import ImageCodec
from sanbu.config import dump, kind_of, load
from sanbu.files import read_object, read_tensors, replace_atomically, weights, write_json, write_tensors
from sanbu.interop.diffusers_fields import shown
from sanbu.interop.diffusers_folder import (
    DIT,
    UNET,
    Part,
    autoencoder_config,
    autoencoder_names,
    ddim,
    dit_config,
    dit_tensors,
    identity,
    moments,
    rename,
    square,
    unet_config,
)
from sanbu.interop.diffusers_in import class_names, foreign
from sanbu.interop.diffusers_layout import (
    Component,
    check_classes,
    components,
    config_path,
    matched,
    read_weights,
    shared_embedders,
)
from sanbu.interop.diffusers_schedulers import PREDICTIONS
from sanbu.interop.huggingface import InteropError
from sanbu.memory.check import check_weights, headers
from sanbu.models.denoisers.dit import DiT
from sanbu.models.denoisers.unet import UNet
from sanbu.models.latents.vae import Autoencoder
from sanbu.paths import Betas, Chain, LinearPath
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.space import Space

VERSION = "0.42.1"  # of diffusers, whose folders these are
BIAS, TABLE = "network.condition.time.down.bias", "network.condition.label.weight"
LABELS = "class_embedder.embedding_table.weight"


# -- out --------------------------------------------------------------------------------------------------------------


def export_folder(run: Run, out: Path, label: str | None = None) -> Path:
    """Write the run's pipeline. label: (U-Net) the label its unconditional pipeline draws; by default none.

    Raises InteropError for a model, path or target that diffusers has no pipeline for.
    """
    codec: Any = run.codec
    chosen = None if label is None else codec.label_number(label)
    pipeline, parts, own = exported(run.recipe, run.model, chosen)
    if out.exists():
        raise InteropError(f"{out} already exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    index = {name: ["diffusers", part.kind] for name, part in parts.items()}
    with replace_atomically(out) as temporary:
        temporary.mkdir()
        write_json(temporary / "model_index.json", {"_class_name": pipeline, "_diffusers_version": VERSION, **index})
        write_json(temporary / "sanbu.json", {"recipe": dump(run.recipe), "label": chosen})
        write_tensors(temporary / "sanbu.safetensors", own)
        codec.save(temporary)
        for name, part in parts.items():
            (temporary / name).mkdir()
            about = {"_class_name": part.kind, "_diffusers_version": VERSION, **part.config}
            write_json(config_path(temporary / name, part.kind), about)
            if part.tensors is not None:
                write_tensors(temporary / name / "diffusion_pytorch_model.safetensors", part.tensors)
    return out


Exported = tuple[str, dict[str, Part], dict[str, Tensor]]


def exported(recipe: Recipe, model: nn.Module, chosen: int | None) -> Exported:
    """The pipeline's class, its components, and the weights that diffusers has no name for. chosen: a label."""
    config = recipe.model
    if isinstance(config, UNet):
        return unet_out(recipe, config, model, chosen)
    if isinstance(config, DiT):
        return dit_out(recipe, config, model)
    if isinstance(config, Autoencoder):
        return autoencoder_out(recipe, config, model)
    raise InteropError(
        f"{recipe.name}: diffusers has no pipeline for {kind_of(config)!r}; kinds it has: unet, dit, autoencoder"
    )


def unet_out(recipe: Recipe, config: UNet, model: nn.Module, chosen: int | None) -> Exported:
    """A UNet2DModel without labels: the embedding of one label is added to the bias of the time embedding."""
    ours, space = weights(model), recipe.data.space()
    if chosen is None and not space.unlabelled:
        raise InteropError(
            f"{recipe.name} always needs a label (data.drop_label=0), and DDPMPipeline passes none: give --label"
        )
    folded = {name: tensor for name, tensor in ours.items() if name != TABLE}
    folded[BIAS] = ours[BIAS] + ours[TABLE][space.classes if chosen is None else chosen]
    theirs = {rename(name, UNET): tensor for name, tensor in folded.items()}
    parts = {"unet": Part("UNet2DModel", unet_config(config, space), theirs), "scheduler": scheduler(recipe, config)}
    return "DDPMPipeline", parts, {BIAS: ours[BIAS], TABLE: ours[TABLE]}


def scheduler(recipe: Recipe, config: UNet | DiT) -> Part:
    """DDIM with trailing steps for a chain of betas, Euler for the linear path. Raises InteropError for other paths."""
    if isinstance(config.path, Chain) and config.target in PREDICTIONS:
        return ddim(config.path, PREDICTIONS[config.target], getattr(recipe.strategy, "clip", False))
    if isinstance(config.path, LinearPath) and config.target == "velocity" and isinstance(config, UNet):
        return Part("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000, "shift": 1.0})
    pipeline, more = ("DDPMPipeline", ", linear with velocity") if isinstance(config, UNet) else ("DiTPipeline", "")
    raise InteropError(
        f"{recipe.name}: diffusers' {pipeline} does not support the path {kind_of(config.path)!r} with the target"
        f" {config.target!r}; supported: betas or listed-betas with noise, clean or rotation{more}"
    )


def dit_out(recipe: Recipe, config: DiT, model: nn.Module) -> Exported:
    """DiTPipeline stores the time and label embeddings per block and has 1001 label rows."""
    space = recipe.data.space()
    parts = {
        "transformer": Part(
            "DiTTransformer2DModel",
            dit_config(config, space.shape),
            dit_tensors(weights(model), space.classes, config.layers),
        ),
        "vae": identity(space.shape[0], square(space.shape)),
        "scheduler": scheduler(recipe, config),
    }
    return "DiTPipeline", parts, {}


def autoencoder_out(recipe: Recipe, config: Autoencoder, model: Any) -> Exported:
    """The embedding of the only label is added to the biases of the layers after it."""
    space, ours = recipe.data.space(), weights(model)
    if space.classes:
        raise InteropError(f"{recipe.name} takes labels, which AutoencoderKL does not; train with data.classes=0")
    side = square(model.latent)
    kept = ("encoder.label.weight", "decoder.label.weight", "encoder.first.bias", "decoder.latent.bias", "log_scale")
    own = {name: ours.pop(name) for name in kept}
    ours["encoder.first.bias"] = own["encoder.first.bias"] + own["encoder.label.weight"][0]
    moved = ours["decoder.latent.weight"].flatten(1) @ own["decoder.label.weight"][0]
    ours["decoder.latent.bias"] = own["decoder.latent.bias"] + moved
    theirs = moments({rename(name, autoencoder_names(config)): tensor for name, tensor in ours.items()}, 2)
    nothing = DiT(width=8, layers=1, heads=1, patch=1)
    latents = Space((config.latent, side, side), 256)
    zero = {name: torch.zeros_like(tensor) for name, tensor in weights(nothing.build(latents)).items()}
    parts = {
        "vae": Part("AutoencoderKL", autoencoder_config(config, space), theirs),
        "transformer": Part("DiTTransformer2DModel", dit_config(nothing, latents.shape), dit_tensors(zero, 0, 1)),
        "scheduler": ddim(Betas(first=1e-7, last=1e-7), "epsilon"),
    }
    return "DiTPipeline", parts, own


# -- in ---------------------------------------------------------------------------------------------------------------


def import_run(source: Path, folder: Path | str) -> Run:
    """A run of the U-Net, DiT or autoencoder in a folder of diffusers. Raises InteropError for what has no equal."""
    largest = max(headers(list(source.rglob("*.safetensors"))), key=lambda file: file.elements, default=None)
    check_weights(f"importing {source}", [largest] if largest else [], built="imported")
    recipe, model = returned(source) if (source / "sanbu.json").exists() else foreign(source)
    space = recipe.data.space()
    names = class_names(source, space.classes) if isinstance(recipe.model, DiT) else ()
    codec = ImageCodec(space, names) if names else recipe.data.codec(source)
    made = Writer.create(folder, recipe, codec.save)
    made.save_model(model)
    return Run.open(made.folder)


def returned(source: Path) -> tuple[Recipe, nn.Module]:
    """The recipe and the model of a folder that `export_folder` wrote. Raises InteropError if it was changed since."""
    about = read_object(source / "sanbu.json", "recipe", "label")
    recipe, own = load(Recipe, about["recipe"]), read_tensors(source / "sanbu.safetensors")
    config, found = recipe.model, components(source)
    check_classes(found)
    part = {UNet: "unet", DiT: "transformer", Autoencoder: "vae"}.get(type(config))
    if part not in found:
        raise InteropError(f"{source / 'sanbu.json'} describes another pipeline: {kind_of(config)!r}")
    theirs, rules = read_weights(found[part].folder), UNET
    if isinstance(config, DiT):
        theirs, rules = shared_embedders(found[part].folder, theirs), DIT
        own = {TABLE: theirs[LABELS][: recipe.data.space().classes + 1]} if LABELS in theirs else {}
    elif isinstance(config, Autoencoder):
        theirs, rules = moments(theirs, 0.5), autoencoder_names(config)
    model = recipe.model.build(recipe.data.space())
    model.load_state_dict(matched(found[part].folder, model, theirs, rules, own))
    _, parts, _ = exported(recipe, model, about["label"])
    for name, expected in parts.items():
        check_unchanged(source, found.get(name), name, expected)
    return recipe, model


def check_unchanged(source: Path, given: Component | None, name: str, expected: Part) -> None:
    """Raise InteropError where a component is not what `export_folder` writes for the recipe in sanbu.json."""
    hint = "delete sanbu.json to import the folder as it is now"
    if given is None or given.kind != expected.kind:
        raise InteropError(f"{source}: {name} is not the {expected.kind} that was exported; {hint}")
    fields = {field: value for field, value in read_object(given.config).items() if not field.startswith("_")}
    for field in fields.keys() | expected.config.keys():
        now, then = fields.get(field, "nothing"), expected.config.get(field, "nothing")
        if now != then:
            raise InteropError(f"{given.config}: {field}: given {shown(now)}, exported as {shown(then)}; {hint}")
    if expected.tensors is not None:
        theirs = read_weights(given.folder)
        for tensor in expected.tensors.keys() | theirs.keys():
            if (
                tensor not in theirs
                or tensor not in expected.tensors
                or not close(theirs[tensor], expected.tensors[tensor])
            ):
                raise InteropError(f"{given.folder}: the tensor {tensor!r} was changed since the export; {hint}")


def close(first: Tensor, second: Tensor) -> bool:
    """Equality up to rounding, which another machine may do in another order."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-6, atol=1e-7)
