"""Runs of pictures as folders that `DiffusionPipeline.from_pretrained` of diffusers loads and samples, and back bit for bit.

A U-Net becomes a DDPMPipeline. A DiT becomes a DiTPipeline, whose autoencoder, which it cannot do without, is written as the
identity. An autoencoder becomes a DiTPipeline whose transformer is zero and whose chain adds next to no noise: the latent that
the pipeline draws first is what its decoder gets. Written with JSON and safetensors alone; what has no place there lies in sanbu.safetensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.config import dump, load
from sanbu.data.kinds import Images, Space
from sanbu.files import read_json, read_tensors, replacing, weights, write_json, write_tensors
from sanbu.interop.huggingface import InteropError
from sanbu.models.kinds import Autoencoder, DiT, UNet
from sanbu.objectives.kinds import Denoising
from sanbu.optimizers.kinds import AdamW
from sanbu.paths import Betas, Linear
from sanbu.recipe import Recipe
from sanbu.run import Run
from sanbu.strategies.kinds import Refinement

VERSION = "0.42.1"  # of diffusers, whose folders these are
ROWS = 1001  # DiTPipeline takes label 1000 for none
PREDICTIONS = {"noise": "epsilon", "clean": "sample", "rotation": "v_prediction"}
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
    """Stages are sequences here: the blocks, then the change of resolution."""
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


def renamed(name: str, rules: Renames) -> str:
    """A name of ours as one of theirs."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


# -- out -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One component of a pipeline: its class, its config, its weights where it has any."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor] | None = None


def export_folder(run: Run, out: Path, label: str | None = None) -> Path:
    """Write the run's pipeline. label: of a U-Net, whose pipeline knows none: the one it shall draw; otherwise no label.

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
        raise InteropError(f"{run.folder}: diffusers has no pipeline for {kind!r}; kinds it has: unet, dit, autoencoder")
    if out.exists():
        raise InteropError(f"{out} already exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    index = {name: ["diffusers", part.kind] for name, part in parts.items()}
    with replacing(out) as temporary:
        temporary.mkdir()
        write_json(temporary / "model_index.json", {"_class_name": pipeline, "_diffusers_version": VERSION, **index})
        write_json(temporary / "sanbu.json", {"recipe": dump(run.recipe)})
        write_tensors(temporary / "sanbu.safetensors", own)
        for name, part in parts.items():
            (temporary / name).mkdir()
            file = "scheduler_config.json" if name == "scheduler" else "config.json"
            write_json(temporary / name / file, {"_class_name": part.kind, "_diffusers_version": VERSION, **part.config})
            if part.tensors is not None:
                write_tensors(temporary / name / "diffusion_pytorch_model.safetensors", part.tensors)
    return out


Exported = tuple[str, dict[str, Part], dict[str, Tensor]]


def unet_out(run: Run, config: UNet, label: str | None) -> Exported:
    """The embedding of one label moves into the bias of the time's embedding: then no label need be told."""
    ours, space = weights(run.model), run.recipe.data.space()
    codec: Any = run.codec
    chosen = space.classes if label is None else codec.number(label)
    if label is None and not space.unlabelled:
        raise InteropError(
            f"{run.folder} always needs a label (data.drop_label=0), and DDPMPipeline tells none: give --label"
        )
    bias, table = "network.condition.time.down.bias", "network.condition.label.weight"
    folded = {name: tensor for name, tensor in ours.items() if name != table}
    folded[bias] = ours[bias] + ours[table][chosen]
    theirs = {renamed(name, UNET): tensor for name, tensor in folded.items()}
    parts = {"unet": Part("UNet2DModel", unet_config(config, space), theirs), "scheduler": scheduler(run, config)}
    return "DDPMPipeline", parts, {bias: ours[bias], table: ours[table]}


def unet_config(config: UNet, space: Space) -> dict[str, Any]:
    """UNet2DModel's arguments."""
    attends = [level in config.attention for level in range(len(config.multipliers))]
    times = 2 ** (len(config.multipliers) - 1)
    if any(side % times for side in space.shape[1:]):
        raise InteropError(
            f"UNet2DModel needs sides that are multiples of {times}; these pictures are {space.shape[2]} x {space.shape[1]}"
        )
    return {
        "sample_size": list(space.shape[1:]),
        "in_channels": space.shape[0],
        "out_channels": space.shape[0],
        "block_out_channels": [config.width * times for times in config.multipliers],
        "down_block_types": ["AttnDownBlock2D" if each else "DownBlock2D" for each in attends],
        "up_block_types": ["AttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        "layers_per_block": config.layers,
        "attention_head_dim": config.head_width,
        "norm_num_groups": config.groups,
        "norm_eps": 1e-5,
        "dropout": config.dropout,
    }


def scheduler(run: Run, config: UNet | DiT) -> Part:
    """DDIM with trailing steps for DDPM's chain, Euler for the linear path. Raises InteropError for other paths and targets."""
    if isinstance(config.path, Betas) and config.target in PREDICTIONS:
        return ddim(config.path, PREDICTIONS[config.target])
    if isinstance(config.path, Linear) and config.target == "velocity" and isinstance(config, UNet):
        return Part("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000, "shift": 1.0})
    raise InteropError(
        f"{run.folder}: diffusers' {'DDPMPipeline' if isinstance(config, UNet) else 'DiTPipeline'} cannot walk the path"
        f" {config.path.model_dump()['kind']!r} with the target {config.target!r}; it can: betas with noise, clean or rotation"
        + (", linear with velocity" if isinstance(config, UNet) else "")
    )


def ddim(path: Betas, prediction: str) -> Part:
    """DDIMScheduler on the chain, noisiest step first, nothing clipped."""
    chain = {"num_train_timesteps": path.steps, "beta_start": path.first, "beta_end": path.last, "beta_schedule": "linear"}
    how = {"prediction_type": prediction, "timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True}
    return Part("DDIMScheduler", {**chain, **how})


def dit_out(run: Run, config: DiT) -> Exported:
    """Time and label embeddings are stored once a block there; the label table is padded to the 1001 rows DiTPipeline reads."""
    space = run.recipe.data.space()
    theirs = dit_tensors(weights(run.model), space.classes, config.layers)
    parts = {
        "transformer": Part("DiTTransformer2DModel", dit_config(config, space.shape), theirs),
        "vae": identity(space.shape[0], square(space.shape)),
        "scheduler": scheduler(run, config),
    }
    return "DiTPipeline", parts, {}


def dit_tensors(ours: dict[str, Tensor], classes: int, layers: int) -> dict[str, Tensor]:
    """DiTTransformer2DModel's weights."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        new = renamed(name, DIT)
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
        "norm_eps": 1e-6,
    }


def square(shape: tuple[int, ...]) -> int:
    """The side of a square picture, the only ones that DiTPipeline draws."""
    if shape[1] != shape[2]:
        raise InteropError(f"DiTPipeline draws square pictures alone; these are {shape[2]} x {shape[1]}")
    return shape[1]


def autoencoder_out(run: Run, config: Autoencoder) -> Exported:
    """The constant of no label moves into the biases it would be added before."""
    space, ours = run.recipe.data.space(), weights(run.model)
    if space.classes:
        raise InteropError(f"{run.folder} is told labels, and AutoencoderKL knows none; train with data.classes=0")
    built: Any = run.model
    side = square(built.latent)
    kept = ("encoder.label.weight", "decoder.label.weight", "encoder.first.bias", "decoder.latent.bias", "log_scale")
    own = {name: ours.pop(name) for name in kept}
    ours["encoder.first.bias"] = own["encoder.first.bias"] + own["encoder.label.weight"][0]
    moved = ours["decoder.latent.weight"].flatten(1) @ own["decoder.label.weight"][0]
    ours["decoder.latent.bias"] = own["decoder.latent.bias"] + moved
    theirs = {renamed(name, autoencoder_names(config)): tensor for name, tensor in ours.items()}
    nothing = DiT(width=8, layers=1, heads=1, patch=1)
    latents = Space((config.latent, side, side), 256)
    zero = {name: torch.zeros_like(tensor) for name, tensor in weights(nothing.build(latents)).items()}
    parts = {
        "vae": Part("AutoencoderKL", autoencoder_config(config, space), theirs),
        "transformer": Part("DiTTransformer2DModel", dit_config(nothing, latents.shape), dit_tensors(zero, 0, 1)),
        "scheduler": ddim(Betas(first=1e-7, last=1e-7), "epsilon"),
    }
    return "DiTPipeline", parts, own


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
    """An autoencoder that gives its latent back, to about 1e-5.

    Each channel becomes (x, -x, M, -M): a group whose mean is 0 and whose deviation is M / sqrt 2 whatever x is, so its norm is linear
    in x; shifted by 30, where SiLU is the identity, and back.
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
            decoder.first.weight[4 * c, c, 1, 1], decoder.first.weight[4 * c + 1, c, 1, 1] = 1, -1
            decoder.first.bias[4 * c + 2], decoder.first.bias[4 * c + 3] = large, -large
            decoder.norm.weight[4 * c], decoder.norm.bias[4 * c] = large / 2**0.5, shift
            decoder.last.weight[c, 4 * c, 1, 1], decoder.last.bias[c] = 1, -shift
    rules = autoencoder_names(config)
    left = ("encoder.label.weight", "decoder.label.weight", "log_scale")
    theirs = {renamed(name, rules): tensor for name, tensor in weights(model).items() if name not in left}
    return Part("AutoencoderKL", autoencoder_config(config, space), theirs)


# -- in ------------------------------------------------------------------------------------------------------------------


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
    run = Run.create(folder, recipe)
    run.codec.save(run.folder)
    run.save_model(model)
    return run


def tensors_in(model: nn.Module, theirs: dict[str, Tensor], own: dict[str, Tensor], rules: Renames) -> dict[str, Tensor]:
    """Every weight of ours: kept beside, found there under its name, or, for a label nobody told, zero."""
    found = {}
    for name, tensor in model.state_dict().items():
        there = renamed(name, rules)
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
    """The recipe of a UNet2DModel that others trained. Raises InteropError for parts that have no equal here."""
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
    return foreign("unet", model, (config["in_channels"], side[0], side[1]), 0)


def foreign_dit(source: Path) -> Recipe:
    """The recipe of a DiTTransformer2DModel that others trained on pixels."""
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
        raise InteropError(f"{source}: a transformer over {config['in_channels']} latent channels; pictures have 1 or 3")
    return foreign("dit", model, (config["in_channels"], config["sample_size"], config["sample_size"]), ROWS - 1)


def expect(source: Path, config: dict[str, Any], **wanted: Any) -> None:
    """Raise InteropError where a config says something else than the only value there is an equal for."""
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise InteropError(f"{source}: {name} is {config[name]!r} there; only {value!r} has an equal here")


def path_in(source: Path) -> dict[str, Any]:
    """Path and target of a scheduler's config."""
    config = read_json(source / "scheduler" / "scheduler_config.json")
    if config["_class_name"] == "FlowMatchEulerDiscreteScheduler":
        return {"path": Linear(), "target": "velocity"}
    expect(source, config, beta_schedule="linear")
    targets = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    given = config.get("prediction_type", "epsilon")
    chain = {"steps": "num_train_timesteps", "first": "beta_start", "last": "beta_end"}
    path = Betas(**{mine: config[theirs] for mine, theirs in chain.items() if theirs in config})
    return {"path": path, "target": targets[given]}


def foreign(name: str, model: UNet | DiT, shape: tuple[int, int, int], classes: int) -> Recipe:
    """A recipe to draw with; its data is named, but not here."""
    data = Images(path="unknown", shape=shape, levels=256, classes=classes, drop_label=0.1 if classes else 0.0)
    return Recipe(name=name, data=data, model=model, objective=Denoising(), optimizer=AdamW(), strategy=Refinement())
