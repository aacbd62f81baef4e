"""Picture runs to and from folders of diffusers' `DiffusionPipeline.from_pretrained`, bit for bit.

A U-Net becomes a DDPMPipeline. A DiT becomes a DiTPipeline, which needs an autoencoder: an identity. An autoencoder
becomes a DiTPipeline whose transformer outputs zero and whose noise schedule adds almost no noise, so that the decoder
gets the latent that the pipeline draws. Folders hold JSON and safetensors; weights that diffusers has no name for are
in sanbu.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.checkpoints import Writer
from sanbu.config import dump, kind_of, load
from sanbu.data.image_rows import Images
from sanbu.files import read_json, read_tensors, replace_atomically, weights, write_json, write_tensors
from sanbu.interop.diffusers_folder import (
    DIT,
    ROWS,
    UNET,
    Part,
    Renames,
    autoencoder_config,
    autoencoder_names,
    ddim,
    dit_config,
    dit_tensors,
    identity,
    rename,
    square,
    unet_config,
)
from sanbu.interop.huggingface import InteropError
from sanbu.models.denoisers.dit import DiT
from sanbu.models.denoisers.unet import UNet
from sanbu.models.latents.vae import Autoencoder
from sanbu.objectives.denoising import Denoising
from sanbu.optimizers.gradient import AdamW
from sanbu.paths import Betas, LinearPath
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.space import Space
from sanbu.strategies.refinement import Refinement

VERSION = "0.42.1"  # of diffusers, whose folders these are
PREDICTIONS = {"noise": "epsilon", "clean": "sample", "rotation": "v_prediction"}
# -- out --------------------------------------------------------------------------------------------------------------


def export_folder(run: Run, out: Path, label: str | None = None) -> Path:
    """Write the run's pipeline. label: (U-Net) the label its unconditional pipeline draws; by default none.

    Raises InteropError for a model, path or target that diffusers has no pipeline for.
    """
    model = run.recipe.model
    if isinstance(model, UNet):
        pipeline, parts, own = unet_out(run, model, label)
    elif isinstance(model, DiT):
        pipeline, parts, own = dit_out(run, model)
    elif isinstance(model, Autoencoder):
        pipeline, parts, own = autoencoder_out(run, model)
    else:
        kind = model.model_dump()["kind"]
        raise InteropError(
            f"{run.folder}: diffusers has no pipeline for {kind!r}; kinds it has: unet, dit, autoencoder"
        )
    if out.exists():
        raise InteropError(f"{out} already exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    index = {name: ["diffusers", part.kind] for name, part in parts.items()}
    with replace_atomically(out) as temporary:
        temporary.mkdir()
        write_json(temporary / "model_index.json", {"_class_name": pipeline, "_diffusers_version": VERSION, **index})
        write_json(temporary / "sanbu.json", {"recipe": dump(run.recipe)})
        write_tensors(temporary / "sanbu.safetensors", own)
        for name, part in parts.items():
            (temporary / name).mkdir()
            file = "scheduler_config.json" if name == "scheduler" else "config.json"
            write_json(
                temporary / name / file, {"_class_name": part.kind, "_diffusers_version": VERSION, **part.config}
            )
            if part.tensors is not None:
                write_tensors(temporary / name / "diffusion_pytorch_model.safetensors", part.tensors)
    return out


Exported = tuple[str, dict[str, Part], dict[str, Tensor]]


def unet_out(run: Run, config: UNet, label: str | None) -> Exported:
    """A UNet2DModel without labels: the embedding of one label is added to the bias of the time embedding."""
    ours, space = weights(run.model), run.recipe.data.space()
    codec: Any = run.codec
    chosen = space.classes if label is None else codec.label_number(label)
    if label is None and not space.unlabelled:
        raise InteropError(
            f"{run.folder} always needs a label (data.drop_label=0), and DDPMPipeline passes none: give --label"
        )
    bias, table = "network.condition.time.down.bias", "network.condition.label.weight"
    folded = {name: tensor for name, tensor in ours.items() if name != table}
    folded[bias] = ours[bias] + ours[table][chosen]
    theirs = {rename(name, UNET): tensor for name, tensor in folded.items()}
    parts = {"unet": Part("UNet2DModel", unet_config(config, space), theirs), "scheduler": scheduler(run, config)}
    return "DDPMPipeline", parts, {bias: ours[bias], table: ours[table]}


def scheduler(run: Run, config: UNet | DiT) -> Part:
    """DDIM with trailing steps for path=betas, Euler for the linear path. Raises InteropError for other paths."""
    if isinstance(config.path, Betas) and config.target in PREDICTIONS:
        return ddim(config.path, PREDICTIONS[config.target])
    if isinstance(config.path, LinearPath) and config.target == "velocity" and isinstance(config, UNet):
        return Part("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000, "shift": 1.0})
    pipeline, more = ("DDPMPipeline", ", linear with velocity") if isinstance(config, UNet) else ("DiTPipeline", "")
    raise InteropError(
        f"{run.folder}: diffusers' {pipeline} does not support the path {kind_of(config.path)!r} with the target"
        f" {config.target!r}; supported: betas with noise, clean or rotation{more}"
    )


def dit_out(run: Run, config: DiT) -> Exported:
    """DiTPipeline stores the time and label embeddings per block and has 1001 label rows."""
    space = run.recipe.data.space()
    theirs = dit_tensors(weights(run.model), space.classes, config.layers)
    parts = {
        "transformer": Part("DiTTransformer2DModel", dit_config(config, space.shape), theirs),
        "vae": identity(space.shape[0], square(space.shape)),
        "scheduler": scheduler(run, config),
    }
    return "DiTPipeline", parts, {}


def autoencoder_out(run: Run, config: Autoencoder) -> Exported:
    """The embedding of the only label is added to the biases of the layers after it."""
    space, ours = run.recipe.data.space(), weights(run.model)
    if space.classes:
        raise InteropError(f"{run.folder} takes labels, which AutoencoderKL does not; train with data.classes=0")
    built: Any = run.model
    side = square(built.latent)
    kept = ("encoder.label.weight", "decoder.label.weight", "encoder.first.bias", "decoder.latent.bias", "log_scale")
    own = {name: ours.pop(name) for name in kept}
    ours["encoder.first.bias"] = own["encoder.first.bias"] + own["encoder.label.weight"][0]
    moved = ours["decoder.latent.weight"].flatten(1) @ own["decoder.label.weight"][0]
    ours["decoder.latent.bias"] = own["decoder.latent.bias"] + moved
    theirs = {rename(name, autoencoder_names(config)): tensor for name, tensor in ours.items()}
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
    """A run of the U-Net, DiT or autoencoder in a pipeline's folder. Raises InteropError for other pipelines."""
    index = read_json(source / "model_index.json")
    kinds = {name: value[1] for name, value in index.items() if isinstance(value, list)}
    known = (source / "sanbu.json").exists()
    recipe = load(Recipe, read_json(source / "sanbu.json")["recipe"]) if known else None
    own = read_tensors(source / "sanbu.safetensors") if known else {}
    if kinds.get("unet") == "UNet2DModel":
        recipe, part, rules = recipe or foreign_unet(source), "unet", UNET
    elif "transformer" in kinds and (recipe is None or isinstance(recipe.model, DiT)):
        recipe, part, rules = recipe or foreign_dit(source), "transformer", DIT
    elif recipe is not None and isinstance(recipe.model, Autoencoder):
        part, rules = "vae", autoencoder_names(recipe.model)
    else:
        raise InteropError(
            f"{source}: given a pipeline of {', '.join(kinds.values())}; read: UNet2DModel, DiTTransformer2DModel"
        )
    theirs = read_tensors(source / part / "diffusion_pytorch_model.safetensors")
    model = recipe.model.build(recipe.data.space())
    model.load_state_dict(tensors_in(model, theirs, own, rules))
    made = Writer.create(folder, recipe, recipe.data.codec(source).save)
    made.save_model(model)
    return Run.open(made.folder)


def tensors_in(
    model: nn.Module, theirs: dict[str, Tensor], own: dict[str, Tensor], rules: Renames
) -> dict[str, Tensor]:
    """Our state dict: from sanbu.safetensors, from the pipeline under its name, or zero for label embeddings."""
    found = {}
    for name, tensor in model.state_dict().items():
        there = rename(name, rules)
        if there.startswith(("class_embedder.", "timestep_embedder.")):
            there = f"transformer_blocks.0.norm1.emb.{there}"
        if name in own:
            found[name] = own[name]
        elif there in theirs:
            value = theirs[there]
            found[name] = value[: tensor.shape[0]] if "embedding_table" in there else value
        elif "label" in name:
            found[name] = torch.zeros_like(tensor)
        else:
            raise InteropError(f"the pipeline has no weight {there!r} for {name!r}")
        if found[name].shape != tensor.shape:
            raise InteropError(f"{there!r}: shape {list(found[name].shape)} there, {list(tensor.shape)} here")
    return found


def foreign_unet(source: Path) -> Recipe:
    """The recipe of a UNet2DModel trained elsewhere. Raises InteropError for settings that are not supported."""
    config = read_json(source / "unet" / "config.json")
    expect(source, config, time_embedding_type="positional", freq_shift=0, flip_sin_to_cos=True, num_class_embeds=None,
           resnet_time_scale_shift="default", norm_eps=1e-5, act_fn="silu", downsample_padding=1)  # fmt: skip
    widths = config["block_out_channels"]
    side = config["sample_size"] if isinstance(config["sample_size"], list) else [config["sample_size"]] * 2
    model = UNet(
        width=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        layers=config.get("layers_per_block", 2),
        attention=tuple(i for i, kind in enumerate(config["down_block_types"]) if kind.startswith("Attn")),
        head_width=config.get("attention_head_dim") or 8,
        groups=config.get("norm_num_groups", 32),
        dropout=config.get("dropout", 0.0),
        **path_in(source),
    )
    return foreign_recipe("unet", model, (config["in_channels"], side[0], side[1]), 0)


def foreign_dit(source: Path) -> Recipe:
    """The recipe of a DiTTransformer2DModel that was trained elsewhere on pixels."""
    config = read_json(source / "transformer" / "config.json")
    expect(source, config, activation_fn="gelu-approximate", attention_bias=True)
    model = DiT(
        width=config["num_attention_heads"] * config["attention_head_dim"],
        heads=config["num_attention_heads"],
        layers=config["num_layers"],
        patch=config["patch_size"],
        **path_in(source),
    )
    if config["in_channels"] not in (1, 3):
        raise InteropError(
            f"{source}: a transformer over {config['in_channels']} latent channels; pictures have 1 or 3"
        )
    return foreign_recipe("dit", model, (config["in_channels"], config["sample_size"], config["sample_size"]), ROWS - 1)


def expect(source: Path, config: dict[str, Any], **wanted: Any) -> None:
    """Raise InteropError for a field of the config that is not the one supported value."""
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise InteropError(f"{source}: {name} is {config[name]!r}; supported: {value!r}")


def path_in(source: Path) -> dict[str, Any]:
    """Path and target of a scheduler's config."""
    config = read_json(source / "scheduler" / "scheduler_config.json")
    if config["_class_name"] == "FlowMatchEulerDiscreteScheduler":
        return {"path": LinearPath(), "target": "velocity"}
    expect(source, config, beta_schedule="linear")
    targets = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    given = config.get("prediction_type", "epsilon")
    chain = {"steps": "num_train_timesteps", "first": "beta_start", "last": "beta_end"}
    path = Betas(**{mine: config[theirs] for mine, theirs in chain.items() if theirs in config})
    return {"path": path, "target": targets[given]}


def foreign_recipe(name: str, model: UNet | DiT, shape: tuple[int, int, int], classes: int) -> Recipe:
    """A recipe for sampling; its data is a placeholder."""
    data = Images(path="unknown", shape=shape, levels=256, classes=classes, drop_label=0.1 if classes else 0.0)
    return Recipe(name=name, data=data, model=model, objective=Denoising(), optimizer=AdamW(), strategy=Refinement())
